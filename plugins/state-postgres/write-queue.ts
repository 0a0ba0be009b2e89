import { isOpenStarryError, OpenStarryError, type StateEntry } from "../../core/index.js";
import { type EncodedWrite, isLive, type Plan, planWrite, type Row } from "../kit/state-plan.js";
import type { Database } from "./database.js";
import { ConcurrentInsertError } from "./failures.js";
import { type NamespaceRow, namespaceRowOf, rowOf, STEP, type Statements } from "./statements.js";
import type { Transaction } from "./transaction.js";

type Answers = (StateEntry | undefined)[];

/**
 * Serializes the work on each namespace: writers lock its row, so that they would wait for each other anyway. Waiting
 * writes share one transaction.
 */
export interface WriteQueue {
  write(name: string, writes: readonly EncodedWrite[]): Promise<Answers>;
  /** Runs `act` after all earlier work on the namespace. */
  run<T>(name: string, act: () => Promise<T>): Promise<T>;
  /** Deletes those of the keys that have expired. */
  expire(name: string, keys: readonly string[]): Promise<void>;
  /** Removes a batch of the records of deletions beyond the newest `keep`; returns whether there are more. */
  prune(name: string, keep: number): Promise<boolean>;
  /** Resolves when no work is in progress. */
  idle(): Promise<void>;
}

interface WriteJob {
  writes: readonly EncodedWrite[];
  bytes: number;
  resolve: (answers: Answers) => void;
  reject: (error: unknown) => void;
}
type Job = WriteJob | { act: () => Promise<void> };

/** A namespace while its row is locked. `space` is absent when the namespace does not exist. */
interface Locked {
  space: NamespaceRow | undefined;
  /** The version of the latest write. */
  version: number;
  rows: Map<string, Row>;
  nowMs: number;
}

/** The limit of waiting jobs, of all namespaces together. */
const MAX_WAITING = 10_000;
const MAX_GROUP = 256;
const MAX_GROUP_BYTES = 4 * 2 ** 20;

/** Creates the write queue. It calls `onChange` with the namespace that has changed and whether keys were deleted. */
export function createWriteQueue(
  database: Database,
  statements: Statements,
  onChange: (name: string, hasDeletions: boolean) => void,
): WriteQueue {
  const jobsByNamespace = new Map<string, Job[]>();
  const drains = new Set<Promise<void>>();
  let waiting = 0;

  function enter(name: string, job: Job): void {
    if (waiting >= MAX_WAITING) {
      throw new OpenStarryError("state_unavailable", {
        detail: `${MAX_WAITING} writes are already waiting for the state store`,
        hint: "try again in a moment",
        data: { retry_after_s: 1 },
      });
    }
    waiting++;
    const waitingJobs = jobsByNamespace.get(name);
    if (waitingJobs) {
      waitingJobs.push(job);
      return;
    }
    const jobs = [job];
    jobsByNamespace.set(name, jobs);
    const drained = drain(name, jobs).finally(() => drains.delete(drained));
    drains.add(drained);
  }

  async function drain(name: string, jobs: Job[]): Promise<void> {
    while (jobs.length > 0) {
      const group = takeGroup(jobs);
      waiting -= group.length;
      const [first] = group;
      if (first && "act" in first) await first.act();
      else await writeGroup(name, group as WriteJob[]);
    }
    jobsByNamespace.delete(name);
  }

  async function writeGroup(name: string, group: readonly WriteJob[]): Promise<void> {
    try {
      const outcomes = await database.transaction((transaction) => tryGroup(transaction, name, group));
      for (const [index, outcome] of outcomes.entries()) {
        if ("refused" in outcome) group[index]?.reject(outcome.refused);
        else group[index]?.resolve(outcome.answers);
      }
    } catch (error) {
      for (const { reject } of group) reject(error);
    }
  }

  async function tryGroup(transaction: Transaction, name: string, group: readonly WriteJob[]) {
    const writes = group.flatMap((job) => job.writes);
    const answered = writes.filter(({ json }) => json === undefined).map(({ key }) => key);
    const makes = writes.some(({ json }) => json !== undefined);
    const keys = [...new Set(writes.map(({ key }) => key))];
    const locked = await lock(transaction, name, keys, { answered, makes });
    const kept = new Map<string, Row>();
    let { version } = locked;
    const outcomes = group.map((job): { answers: Answers } | { refused: unknown } => {
      const find = (key: string) => kept.get(key) ?? locked.rows.get(key);
      try {
        const plan = planWrite(job.writes, { version, find, nowMs: locked.nowMs });
        version = plan.version;
        for (const [key, row] of plan.rows) kept.set(key, row);
        return { answers: plan.answers };
      } catch (refused) {
        if (!isOpenStarryError(refused) || refused.code !== "state_conflict") throw refused;
        return { refused };
      }
    });
    await keep(transaction, name, locked.space, { rows: kept, version });
    return outcomes;
  }

  /** Locks the row of a namespace and reads these keys. `makes`: a missing namespace is created. */
  async function lock(
    transaction: Transaction,
    name: string,
    keys: readonly string[],
    { answered = [], makes = false }: { answered?: readonly string[]; makes?: boolean } = {},
  ): Promise<Locked> {
    const queries = [
      statements.lock(name),
      statements.rows(name, keys, answered),
      statements.now(),
      statements.initialVersion(),
    ];
    let found = await transaction.send(...queries);
    if (!found[0]?.[0] && makes) found = (await transaction.send(statements.add(name), ...queries)).slice(1);
    if (makes && !found[0]?.[0]) throw new ConcurrentInsertError();
    const [[space] = [], rows = [], [now] = [], [meta] = []] = found;
    return {
      space: space && namespaceRowOf(space),
      version: Number(space ? space["version"] : meta?.["floor"]),
      rows: new Map(rows.map(rowOf).map((row) => [row.key, row])),
      nowMs: Number(now?.["now"]),
    };
  }

  async function keep(
    transaction: Transaction,
    name: string,
    space: NamespaceRow | undefined,
    { rows, version }: Pick<Plan, "rows" | "version">,
  ): Promise<void> {
    if (rows.size === 0 || !space) return;
    const all = [...rows.values()];
    await transaction.commit(statements.put(space, all), statements.setVersion(space, version));
    onChange(
      name,
      all.some(({ json }) => json === undefined),
    );
  }

  function run<T>(name: string, act: () => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      enter(name, { act: () => act().then(resolve, reject) });
    });
  }

  return {
    write: (name, writes) =>
      new Promise((resolve, reject) => {
        const bytes = writes.reduce((sum, { json }) => sum + (json?.length ?? 0), 0);
        enter(name, { writes, bytes, resolve, reject });
      }),
    run,
    async idle() {
      await Promise.all(drains);
    },
    expire: (name, keys) =>
      run(name, () =>
        database.transaction(async (transaction) => {
          const locked = await lock(transaction, name, keys);
          const { nowMs } = locked;
          let { version } = locked;
          const expired = [...locked.rows.values()].filter(
            (row) => row.json !== undefined && !isLive(row, nowMs),
          );
          const rows = new Map<string, Row>();
          for (const { key } of expired) rows.set(key, { key, version: ++version, updatedAtMs: nowMs });
          await keep(transaction, name, locked.space, { rows, version });
        }),
      ),
    prune: (name, keepCount) =>
      run(name, () =>
        database.transaction(async (transaction) => {
          const [[row] = []] = await transaction.send(statements.lock(name));
          if (!row) return false;
          const space = namespaceRowOf(row);
          const [[surplus] = []] = await transaction.send(statements.surplus(space, keepCount));
          if (!surplus) return false;
          const version = Number(surplus["version"]);
          const [, gone = []] = await transaction.send(
            statements.setPruned(space, version),
            statements.prune(space, version),
          );
          await transaction.commit();
          return gone.length === STEP;
        }),
      ),
  };
}

/** Takes the next work from the jobs of a namespace: one action, or the writes up to the next action. */
function takeGroup(jobs: Job[]): Job[] {
  let count = 0;
  let bytes = 0;
  for (const job of jobs) {
    if ("act" in job || count === MAX_GROUP || (count > 0 && bytes + job.bytes > MAX_GROUP_BYTES)) break;
    bytes += job.bytes;
    count++;
  }
  return jobs.splice(0, Math.max(count, 1));
}
