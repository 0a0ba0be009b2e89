import {
  type Clock,
  rfc3339,
  type StateChange,
  type StateEntry,
  type StateStore,
  type StateWrite,
} from "../../core/index.js";
import { expectVersion } from "../kit/expect-version.js";

/** A key as it is, or was: a deleted one keeps its version for those who watch. */
interface Slot {
  key: string;
  version: number;
  /** Absent: deleted. */
  json?: string;
  updatedAtMs: number;
  expiresAtMs: number;
}

interface Namespace {
  version: number;
  slots: Map<string, Slot>;
  /** Wakes those who watch. */
  watchers: Set<() => void>;
  dropped: boolean;
}

const MAX_PAGE_BYTES = 4 * 2 ** 20;
/** How often entries whose time is over are looked for. */
const SWEEP_MS = 1_000;

/** The reference: everything in this process's memory, gone with it. Deletions are remembered for ever. */
export function createMemoryStore(clock: Pick<Clock, "now" | "after">) {
  const namespaces = new Map<string, Namespace>();
  let cancelSweep = () => {};

  function open(name: string): Namespace {
    const known = namespaces.get(name);
    if (known) return known;
    const made = { version: 0, slots: new Map(), watchers: new Set<() => void>(), dropped: false };
    namespaces.set(name, made);
    return made;
  }

  const isLive = (slot: Slot | undefined): slot is Slot & { json: string } =>
    slot?.json !== undefined && slot.expiresAtMs > clock.now();

  function write(name: string, writes: readonly StateWrite[]): (StateEntry | undefined)[] {
    const space = open(name);
    const before = new Map(writes.map(({ key }) => [key, space.slots.get(key)]));
    const { version } = space;
    try {
      const answers = writes.map((one) => apply(space, one));
      wake(space);
      return answers;
    } catch (error) {
      space.version = version;
      for (const [key, slot] of before) {
        if (slot) space.slots.set(key, slot);
        else space.slots.delete(key);
      }
      throw error;
    }
  }

  function apply(space: Namespace, one: StateWrite): StateEntry | undefined {
    const { key } = one;
    const found = space.slots.get(key);
    const live = isLive(found) ? found : undefined;
    expectVersion(key, live?.version ?? 0, one.expect);
    if (one.op === "delete" && !live) return undefined;
    space.version += 1;
    const updatedAtMs = clock.now();
    const slot: Slot = { key, version: space.version, updatedAtMs, expiresAtMs: Number.POSITIVE_INFINITY };
    if (one.op === "put") {
      slot.json = JSON.stringify(one.value);
      if (one.ttlMs !== undefined) slot.expiresAtMs = updatedAtMs + one.ttlMs;
    }
    space.slots.set(key, slot);
    const told = one.op === "put" ? slot : live;
    return told && entryOf(told);
  }

  function sweep() {
    for (const space of namespaces.values()) {
      const over = [...space.slots.values()].filter((slot) => slot.json !== undefined && !isLive(slot));
      for (const { key, updatedAtMs } of over) {
        space.version += 1;
        const expiresAtMs = Number.POSITIVE_INFINITY;
        space.slots.set(key, { key, version: space.version, updatedAtMs, expiresAtMs });
      }
      if (over.length > 0) wake(space);
    }
    cancelSweep = clock.after(SWEEP_MS, sweep);
  }

  const store: StateStore = {
    name: "memory",
    capabilities: { durable: false },
    async get(name, key) {
      const slot = namespaces.get(name)?.slots.get(key);
      return isLive(slot) ? entryOf(slot) : undefined;
    },
    write: async (name, writes) => write(name, writes),
    async list(name, { prefix = "", after, limit }) {
      const keys = [...(namespaces.get(name)?.slots.values() ?? [])]
        .filter((slot) => isLive(slot) && slot.key.startsWith(prefix))
        .sort((a, b) => compareKeys(a.key, b.key))
        .filter(({ key }) => after === undefined || compareKeys(key, after) > 0);
      const entries: StateEntry[] = [];
      let bytes = 0;
      for (const slot of keys) {
        bytes += slot.json?.length ?? 0;
        if (entries.length === limit || (entries.length > 0 && bytes > MAX_PAGE_BYTES)) break;
        entries.push(entryOf(slot));
      }
      return { entries, more: entries.length < keys.length };
    },
    watch: (name, query) => changes(open(name), query),
    namespaces: async () => [...namespaces.keys()],
    async drop(name) {
      const space = namespaces.get(name);
      namespaces.delete(name);
      if (!space) return;
      space.dropped = true;
      wake(space);
    },
    health: () => undefined,
  };
  return {
    store,
    start: sweep,
    stop: () => cancelSweep(),
  };
}

function wake(space: Namespace): void {
  for (const watcher of space.watchers) watcher();
}

async function* changes(
  space: Namespace,
  { prefix = "", after = space.version, signal }: Parameters<StateStore["watch"]>[1],
): AsyncGenerator<StateChange> {
  let seen = after;
  let changed = () => {};
  const watcher = () => changed();
  space.watchers.add(watcher);
  signal.addEventListener("abort", watcher);
  try {
    while (!signal.aborted && !space.dropped) {
      const next = new Promise<void>((resolve) => {
        changed = resolve;
      });
      const fresh = [...space.slots.values()]
        .filter(({ version }) => version > seen)
        .sort((a, b) => a.version - b.version);
      for (const { key } of fresh) {
        const slot = space.slots.get(key);
        // Overwritten meanwhile: it has its turn further on.
        if (!slot || slot.version > (fresh.at(-1)?.version ?? 0)) continue;
        seen = Math.max(seen, slot.version);
        if (!key.startsWith(prefix)) continue;
        if (slot.json === undefined) yield { type: "delete", key, version: slot.version };
        else yield { type: "put", entry: entryOf(slot) };
        if (signal.aborted) return;
      }
      if (fresh.length === 0) await next;
    }
  } finally {
    space.watchers.delete(watcher);
    signal.removeEventListener("abort", watcher);
  }
}

function entryOf(slot: Slot): StateEntry {
  return {
    key: slot.key,
    value: JSON.parse(slot.json ?? "null"),
    version: slot.version,
    updated_at: rfc3339(slot.updatedAtMs),
    ...(Number.isFinite(slot.expiresAtMs) ? { expires_at: rfc3339(slot.expiresAtMs) } : {}),
  };
}

/** By their UTF-8 bytes, which is not the order of JavaScript's strings. */
function compareKeys(left: string, right: string): number {
  return Buffer.compare(Buffer.from(left), Buffer.from(right));
}
