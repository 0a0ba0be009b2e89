import { isOpenStarryError, OpenStarryError, type StateEntry } from "../../core/index.js";
import { type EncodedWrite, isLive, type Plan, planWrite, type Row } from "../kit/state-plan.js";
import type { Database } from "./database.js";
import { Collision } from "./failures.js";
import { rowOf, type Space, STEP, type Statements, spaceOf } from "./statements.js";
import type { Transaction } from "./transaction.js";

type Answers = (StateEntry | undefined)[];

/**
 * What is done to a namespace, one thing after the other: its row is locked by who writes, so that they would wait
 * for each other anyway. Writes that wait are done together, in one transaction.
 */
export interface Lanes {
  write(name: string, writes: readonly EncodedWrite[]): Promise<Answers>;
  /** Does this when it is its turn. */
  run<T>(name: string, act: () => Promise<T>): Promise<T>;
  /** Turns those of the keys whose time is over into deletions. */
  expire(name: string, keys: readonly string[]): Promise<void>;
  /** Forgets some of all but the newest deletions; answers whether there are more. */
  prune(name: string, keep: number): Promise<boolean>;
  /** Resolves when nothing is under way any more. */
  idle(): Promise<void>;
}

interface WriteJob {
  writes: readonly EncodedWrite[];
  bytes: number;
  resolve: (answers: Answers) => void;
  reject: (error: unknown) => void;
}
type Job = WriteJob | { act: () => Promise<void> };

/** What a namespace is while its row is locked. `space` is absent where there is none. */
interface Locked {
  space?: Space;
  /** The version before the next. */
  version: number;
  rows: Map<string, Row>;
  nowMs: number;
}

/** Those who wait for their turn, in all namespaces. */
const MAX_WAITING = 10_000;
const MAX_GROUP = 256;
const MAX_GROUP_BYTES = 4 * 2 ** 20;

/** `onChange` is told whose namespaces have changed, and whether there were deletions. */
export function createLanes(
  database: Database,
  statements: Statements,
  onChange: (name: string, hasDeletions: boolean) => void,
): Lanes {
  const lanes = new Map<string, Job[]>();
  const drains = new Set<Promise<void>>();
  let waiting = 0;

  function enter(name: string, job: Job): void {
    if (waiting >= MAX_WAITING) {
      throw new OpenStarryError("state_unavailable", {
        detail: `${MAX_WAITING} writes wait for the state store already`,
        hint: "ask again in a moment",
        data: { retry_after_s: 1 },
      });
    }
    waiting++;
    const lane = lanes.get(name);
    if (lane) {
      lane.push(job);
      return;
    }
    const jobs = [job];
    lanes.set(name, jobs);
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
    lanes.delete(name);
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

  /** `makes`: a namespace that is not there is made. */
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
      statements.floor(),
    ];
    let found = await transaction.send(...queries);
    if (!found[0]?.[0] && makes) found = (await transaction.send(statements.add(name), ...queries)).slice(1);
    if (makes && !found[0]?.[0]) throw new Collision();
    const [[space] = [], rows = [], [now] = [], [meta] = []] = found;
    return {
      ...(space ? { space: spaceOf(space) } : {}),
      version: Number(space ? space["version"] : meta?.["floor"]),
      rows: new Map(rows.map(rowOf).map((row) => [row.key, row])),
      nowMs: Number(now?.["now"]),
    };
  }

  async function keep(
    transaction: Transaction,
    name: string,
    space: Space | undefined,
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
          const over = [...locked.rows.values()].filter(
            (row) => row.json !== undefined && !isLive(row, nowMs),
          );
          const rows = new Map<string, Row>();
          for (const { key } of over) rows.set(key, { key, version: ++version, updatedAtMs: nowMs });
          await keep(transaction, name, locked.space, { rows, version });
        }),
      ),
    prune: (name, keepCount) =>
      run(name, () =>
        database.transaction(async (transaction) => {
          const [[row] = []] = await transaction.send(statements.lock(name));
          if (!row) return false;
          const space = spaceOf(row);
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

/** What is next in a lane: one job, or the writes that wait until something else does. */
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
