import {
  type Clock,
  OpenStarryError,
  type StateChange,
  type StateEntry,
  type StateStore,
  type WatchQuery,
} from "openstarry-daemon";
import { type EncodedWrite, encodeWrite, entryOf, isLive, planWrite, type Row } from "openstarry-daemon/kit";
import { type Line, type LinesFile, openLines } from "./lines-file.js";

interface Namespace {
  rows: Map<string, Row>;
  /** Deletions up to this version are not known any more. */
  forgotten: number;
  /** Wakes those who watch. */
  watchers: Set<() => void>;
  dropped: boolean;
}

const MAX_PAGE_BYTES = 4 * 2 ** 20;
/** How often entries whose time is over are deleted. */
const SWEEP_MS = 1_000;
/** So many deletions of a namespace are remembered when the file is written anew. */
const KEPT_DELETIONS = 1_000;
/** The file is written anew when it has grown to four times of what it was then, from this size on. */
const REWRITE_FROM_BYTES = 4 * 2 ** 20;

/**
 * A state store in memory, and in a file from which the next daemon reads it again. Every write is on the
 * disk before it is acknowledged and before anybody sees it.
 */
export function createLinesStore(path: string, clock: Pick<Clock, "now" | "after">) {
  const namespaces = new Map<string, Namespace>();
  /** One for all namespaces: so no version of a namespace that was dropped comes again. */
  let version = 0;
  let file: LinesFile | undefined;
  let rewrittenSize = 0;
  let problem: string | undefined = "it is not started";
  let queue: Promise<unknown> = Promise.resolve();
  let cancelSweep = () => {};

  function open(name: string): Namespace {
    const known = namespaces.get(name);
    if (known) return known;
    // Who has seen a version of an earlier namespace of this name has missed its end.
    const made = { rows: new Map(), forgotten: version, watchers: new Set<() => void>(), dropped: false };
    namespaces.set(name, made);
    return made;
  }

  /** What a line says, done: when the file is read, and when a line of it is on the disk. */
  function apply(line: Line): void {
    if (!("ns" in line)) {
      version = line.version;
    } else if ("forgotten" in line) {
      open(line.ns).forgotten = line.forgotten;
    } else if ("dropped" in line) {
      version = Math.max(version, line.dropped);
      const space = namespaces.get(line.ns);
      namespaces.delete(line.ns);
      if (!space) return;
      space.dropped = true;
      wake(space);
    } else {
      const space = open(line.ns);
      for (const row of line.changes) {
        // Set anew, so that the map is in the order of versions.
        space.rows.delete(row.key);
        space.rows.set(row.key, row);
        version = Math.max(version, row.version);
      }
      wake(space);
    }
  }

  function mustRun(): LinesFile {
    if (file && problem === undefined) return file;
    throw unavailable(problem ?? "it is stopped");
  }

  /** One after the other; what is answered has happened. */
  function inTurn<T>(work: (file: LinesFile) => Promise<T>): Promise<T> {
    const done = queue.then(() => work(mustRun()));
    queue = done.catch(() => {});
    return done;
  }

  async function commit(to: LinesFile, line: Line): Promise<void> {
    try {
      await to.append(line);
    } catch (error) {
      const why = `${path} cannot be written (${(error as NodeJS.ErrnoException).code ?? error})`;
      throw unavailable(why, error);
    }
    apply(line);
    if (to.size() < Math.max(REWRITE_FROM_BYTES, 4 * rewrittenSize)) return;
    // What was acknowledged is in the old file as well: a disk that is full now is tried again later.
    await rewrite(to).catch(() => {});
  }

  async function rewrite(to: LinesFile): Promise<void> {
    for (const space of namespaces.values()) {
      const deletions = [...space.rows.values()].filter(({ json }) => json === undefined);
      for (const { key, version } of deletions.slice(0, -KEPT_DELETIONS)) {
        space.rows.delete(key);
        space.forgotten = Math.max(space.forgotten, version);
      }
    }
    const lines: Line[] = [{ version }];
    for (const [ns, { forgotten, rows }] of namespaces) {
      lines.push({ ns, forgotten });
      for (const row of rows.values()) lines.push({ ns, changes: [row] });
    }
    await to.rewrite(lines);
    rewrittenSize = to.size();
  }

  /** Plans a batch without changing anything. The rows are in the order of their versions. */
  function plan(name: string, writes: readonly EncodedWrite[]) {
    const before = namespaces.get(name)?.rows;
    const { rows, answers } = planWrite(writes, {
      version,
      find: (key) => before?.get(key),
      nowMs: clock.now(),
    });
    return { changes: [...rows.values()].sort((a, b) => a.version - b.version), answers };
  }

  async function sweep(): Promise<void> {
    for (const [ns, space] of namespaces) {
      const over = () =>
        [...space.rows.values()].filter((row) => row.json !== undefined && !isLive(row, clock.now()));
      if (over().length === 0) continue;
      await inTurn(async (to) => {
        const changes = over().map(({ key, updatedAtMs }, index): Row => {
          return { key, updatedAtMs, version: version + index + 1 };
        });
        if (changes.length > 0 && !space.dropped) await commit(to, { ns, changes });
      }).catch(() => {});
    }
    if (problem === undefined) cancelSweep = clock.after(SWEEP_MS, () => void sweep());
  }

  async function* changesOf(name: string, query: WatchQuery): AsyncGenerator<StateChange> {
    const { prefix = "", signal } = query;
    mustRun();
    const space = open(name);
    let seen = query.after ?? version;
    let wakeUp = () => {};
    const watcher = () => wakeUp();
    space.watchers.add(watcher);
    signal.addEventListener("abort", watcher);
    try {
      if ((seen > 0 && seen < space.forgotten) || seen > version) {
        seen = seen > version ? version : space.forgotten;
        yield { type: "gap", version: seen };
      }
      while (!signal.aborted && !space.dropped) {
        mustRun();
        const woken = new Promise<void>((resolve) => {
          wakeUp = resolve;
        });
        const fresh = [...space.rows.values()].filter((row) => row.version > seen);
        for (const row of fresh.sort((a, b) => a.version - b.version)) {
          seen = row.version;
          // Overwritten meanwhile: it has its turn further on.
          if (space.rows.get(row.key) !== row || !row.key.startsWith(prefix)) continue;
          const { key, version } = row;
          yield row.json === undefined
            ? { type: "delete", key, version }
            : { type: "put", entry: entryOf(row) };
          if (signal.aborted) return;
        }
        if (fresh.length === 0) await woken;
      }
    } finally {
      space.watchers.delete(watcher);
      signal.removeEventListener("abort", watcher);
    }
  }

  const store: StateStore = {
    name: "lines",
    capabilities: { durable: true },
    async get(name, key) {
      mustRun();
      const row = namespaces.get(name)?.rows.get(key);
      return row && isLive(row, clock.now()) ? entryOf(row) : undefined;
    },
    async write(name, writes) {
      // Encoded before anything is awaited: the caller may change its values afterwards.
      const encoded = writes.map(encodeWrite);
      return inTurn(async (to) => {
        const { changes, answers } = plan(name, encoded);
        if (changes.length > 0) await commit(to, { ns: name, changes });
        return answers;
      });
    },
    async list(name, { prefix = "", after, limit }) {
      mustRun();
      const found = [...(namespaces.get(name)?.rows.values() ?? [])]
        .filter((row) => isLive(row, clock.now()) && row.key.startsWith(prefix))
        .filter(({ key }) => after === undefined || compareKeys(key, after) > 0)
        .sort((a, b) => compareKeys(a.key, b.key));
      const entries: StateEntry[] = [];
      let bytes = 0;
      for (const row of found) {
        bytes += row.json?.length ?? 0;
        if (entries.length === limit || (entries.length > 0 && bytes > MAX_PAGE_BYTES)) break;
        entries.push(entryOf(row));
      }
      return { entries, more: entries.length < found.length };
    },
    watch: changesOf,
    async namespaces() {
      mustRun();
      return [...namespaces.keys()];
    },
    drop: (name) =>
      inTurn(async (to) => {
        if (namespaces.has(name)) await commit(to, { ns: name, dropped: version + 1 });
      }),
    health: () => problem,
  };

  return {
    store,
    async start(): Promise<void> {
      file = await openLines(path, apply);
      await rewrite(file);
      problem = undefined;
      await sweep();
    },
    async stop(): Promise<void> {
      cancelSweep();
      problem = "it is stopped";
      // What is under way comes to its end; what waits behind it is refused.
      await queue;
      for (const space of namespaces.values()) wake(space);
      await file?.close();
      file = undefined;
    },
  };
}

function wake({ watchers }: Namespace): void {
  for (const watcher of [...watchers]) watcher();
}

/** By their UTF-8 bytes, which is not the order of JavaScript's strings. */
function compareKeys(left: string, right: string): number {
  return Buffer.compare(Buffer.from(left), Buffer.from(right));
}

function unavailable(why: string, cause?: unknown): OpenStarryError {
  return new OpenStarryError("state_unavailable", {
    detail: `the state store cannot be used: ${why}`,
    hint: "ask again later; a write may have happened or not",
    cause,
  });
}
