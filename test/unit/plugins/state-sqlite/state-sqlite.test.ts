import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import Database from "libsql";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type StateChange, type StateWrite, systemClock } from "../../../../core/index.js";
import { createSqliteStore } from "../../../../plugins/state-sqlite/sqlite-store.js";
import { testStateStore } from "../../../contract/index.js";
import { canMount, mountSmallDisk } from "../../../helpers/small-disk.js";
import { waitFor } from "../../../helpers/wait-for.js";

if (!canMount) console.log("skipped: a full disk needs the right to mount a small one");

const folders: string[] = [];
function makeFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "openstarry-state-"));
  folders.push(folder);
  return folder;
}
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

function subject(dataDir: string, maxDeletions = 1_000) {
  return {
    ...createSqliteStore({ dataDir, clock: systemClock, maxDeletions }),
    reopen: () => subject(dataDir, maxDeletions),
  };
}

testStateStore({ test, factory: () => subject(makeFolder()), capabilities: { durable: true } });

const NS = "shared";
type Subject = ReturnType<typeof subject>;
const stores: Subject[] = [];

async function started(dataDir = makeFolder(), maxDeletions?: number): Promise<Subject> {
  const it = subject(dataDir, maxDeletions);
  stores.push(it);
  await it.start();
  return it;
}
afterEach(async () => {
  for (const it of stores.splice(0)) await it.stop();
});

const put = (key: string, value: unknown = 1): StateWrite => ({ op: "put", key, value });
const del = (key: string): StateWrite => ({ op: "delete", key });

/** The first changes that a watch tells. */
async function firstChanges(it: Subject, after: number, count: number): Promise<StateChange[]> {
  const ended = new AbortController();
  const seen: StateChange[] = [];
  for await (const change of it.store.watch(NS, { after, signal: ended.signal })) {
    seen.push(change);
    if (seen.length === count) ended.abort();
  }
  return seen;
}

async function fill(it: Subject, count: number): Promise<void> {
  const keys = Array.from({ length: count }, (_, index) => `key/${String(index).padStart(7, "0")}`);
  const writes: Promise<unknown>[] = [];
  for (let at = 0; at < count; at += 100) {
    writes.push(
      it.store.write(
        NS,
        keys.slice(at, at + 100).map((key) => put(key)),
      ),
    );
  }
  await Promise.all(writes);
}

describe("a file that cannot be used is refused and left as it is", () => {
  let path: string;
  async function assertRefused(what: RegExp) {
    const before = readFileSync(path);
    const error = await subject(dirname(path))
      .start()
      .catch((it: unknown) => it);
    expect(error).toMatchObject({
      code: "home_unusable",
      message: expect.stringMatching(what),
      hint: expect.stringMatching(/backup|newer daemon/),
    });
    expect((error as Error).message).toContain(path);
    expect(readFileSync(path).equals(before)).toBe(true);
  }
  beforeEach(async () => {
    const it = await started();
    path = join(folders.at(-1) as string, "state.db");
    await fill(it, 1_000);
    await it.stop();
  });

  test.each<[string, () => void, RegExp]>([
    [
      "not a database",
      () => writeFileSync(path, "a shopping list\n".repeat(400)),
      /cannot be read as a state store/,
    ],
    ["no bytes at all", () => writeFileSync(path, ""), /is empty, and a state store never is/],
    ["cut short", () => truncateSync(path, 20 * 4_096), /malformed|damaged/],
    [
      "cut short in its last page",
      () => truncateSync(path, readFileSync(path).length - 1),
      /damaged: it ends/,
    ],
    [
      "overwritten in the middle",
      () => writeFileSync(path, readFileSync(path).fill(0xa5, 4_096, 30_000)),
      /malformed|damaged/,
    ],
    [
      "a newer schema",
      () => edit("PRAGMA user_version = 7"),
      /schema version 7; this daemon knows versions up to 1/,
    ],
    ["a journal under its name", () => edit("PRAGMA application_id = 1330858545"), /not a state store/],
  ])("%s", async (_, damage, what) => {
    damage();
    await assertRefused(what);
  });

  function edit(pragma: string) {
    const database = new Database(path);
    database.exec(`${pragma}; PRAGMA wal_checkpoint(TRUNCATE)`);
    database.close();
  }
});

test("of writes that share a commit, one that conflicts does not take the others along", async () => {
  const { store } = await started();
  const all = await Promise.allSettled([
    store.write(NS, [put("a")]),
    store.write(NS, [put("b"), { op: "put", key: "a", value: 2, expect: "absent" }]),
    store.write("fresh", [{ op: "put", key: "a", value: 2, expect: 7 }]),
    store.write("fresh", [del("a")]),
    store.write(NS, [put("c")]),
  ]);
  expect(all.map(({ status }) => status)).toEqual([
    "fulfilled",
    "rejected",
    "rejected",
    "fulfilled",
    "fulfilled",
  ]);
  const { entries } = await store.list(NS, { limit: 10 });
  expect(entries.map(({ key, version }) => [key, version])).toEqual([
    ["a", 1],
    ["c", 2],
  ]);
  expect(await store.namespaces()).toEqual([NS]);
});

test("200,000 keys: pages are as quick at the end as at the beginning, and a watch reads them in pages", async () => {
  const it = await started();
  await fill(it, 200_000);
  const timeOf = async (after: string) => {
    const began = performance.now();
    for (let round = 0; round < 20; round++) await it.store.list(NS, { limit: 100, after });
    return performance.now() - began;
  };
  await timeOf("key/0000000");
  const [first, last] = [await timeOf("key/0000000"), await timeOf("key/0199000")];
  // A scan over what lies before it would be thousands of times slower.
  expect(last).toBeLessThan(20 * Math.max(first, 5));
  let keys = 0;
  for (let after = "", more = true; more; ) {
    const page = await it.store.list(NS, { limit: 1_000, ...(after && { after }) });
    keys += page.entries.length;
    after = page.entries.at(-1)?.key ?? "";
    more = page.more;
  }
  expect(keys).toBe(200_000);
  const seen = await firstChanges(it, 0, 200_000);
  expect(new Set(seen.map((change) => change.type === "put" && change.entry.key)).size).toBe(200_000);
}, 120_000);

test("the newest deletions are kept; a watch from before those gets a gap, one from after them does not", async () => {
  const it = await started(makeFolder(), 5);
  await it.store.write(NS, [put("stays"), ...Array.from({ length: 20 }, (_, index) => put(`k${index}`))]);
  await it.store.write(
    NS,
    Array.from({ length: 20 }, (_, index) => del(`k${index}`)),
  );
  const told = await waitFor(
    async () => {
      const [change] = await firstChanges(it, 30, 1);
      return change?.type === "gap" && change;
    },
    { what: "the deletions to be pruned" },
  );
  expect(told).toEqual({ type: "gap", version: 36 });
  expect(await firstChanges(it, 36, 5)).toEqual(
    [15, 16, 17, 18, 19].map((index) => ({ type: "delete", key: `k${index}`, version: index + 22 })),
  );
  // Who has seen nothing has missed nothing.
  expect(await firstChanges(it, 0, 2)).toMatchObject([{ type: "put" }, { type: "delete", key: "k15" }]);
});

test("a namespace that was dropped gives no version a second time, and watches of it are told of a gap", async () => {
  const it = await started();
  await fill(it, 2_500);
  await it.store.drop(NS);
  expect(await it.store.namespaces()).toEqual([]);
  expect(await firstChanges(it, 2_500, 1)).toEqual([{ type: "gap", version: 0 }]);
  const [entry] = await it.store.write(NS, [put("anew")]);
  expect(entry?.version).toBe(2_502);
  expect(await firstChanges(it, 2_500, 2)).toMatchObject([
    { type: "gap", version: 2_501 },
    { type: "put", entry: { key: "anew" } },
  ]);
  const path = join(folders.at(-1) as string, "state.db");
  const rows = () => {
    const database = new Database(path, { readonly: true });
    const [row] = database.prepare("SELECT count(*) AS count FROM entries").all() as { count: number }[];
    database.close();
    return row?.count;
  };
  await waitFor(() => rows() === 1, { what: "its rows to be cleared away" });
});

test("many entries whose time is over at once become deletions, bit by bit", async () => {
  const it = await started(makeFolder(), 5_000);
  for (let at = 0; at < 30; at++) {
    await it.store.write(
      NS,
      Array.from({ length: 100 }, (_, index) => ({ ...put(`${at}/${index}`), ttlMs: 50 }) as StateWrite),
    );
  }
  const ended = new AbortController();
  const gone = new Set<string>();
  for await (const change of it.store.watch(NS, { after: 0, signal: ended.signal })) {
    if (change.type === "delete") gone.add(change.key);
    if (gone.size === 3_000) ended.abort();
  }
  expect(await it.store.list(NS, { limit: 10 })).toEqual({ entries: [], more: false });
});

test("a watch rejects when the store is stopped", async () => {
  const it = await started();
  const next = it.store.watch(NS, { signal: new AbortController().signal })[Symbol.asyncIterator]().next();
  await it.stop();
  await expect(next).rejects.toMatchObject({ code: "state_unavailable" });
  await expect(it.store.get(NS, "k")).rejects.toMatchObject({ code: "state_unavailable" });
  expect(it.store.health()).toBeDefined();
});

test.runIf(canMount)(
  "on a full disk writes are refused and reads go on; with space all does again",
  async () => {
    const folder = makeFolder();
    const disk = mountSmallDisk(join(folder, "home"), 2_048);
    const problems: (string | undefined)[] = [];
    const options = { dataDir: join(folder, "home"), clock: systemClock, maxDeletions: 10 };
    const { store, start, stop } = createSqliteStore({ ...options, onProblem: (it) => problems.push(it) });
    try {
      await start();
      await store.write(NS, [put("before", "kept")]);
      disk.fill();
      const large = put("large", "x".repeat(300_000));
      await expect(store.write(NS, [large])).rejects.toMatchObject({
        code: "state_unavailable",
        hint: expect.stringContaining("free disk space"),
      });
      expect((await store.get(NS, "before"))?.value).toBe("kept");
      expect(store.health()).toBeUndefined();
      expect(problems).toEqual([expect.stringContaining("state.db could not be written")]);
      disk.free();
      await store.write(NS, [large]);
      expect(problems.at(-1)).toBeUndefined();
      expect((await store.get(NS, "large"))?.version).toBe(2);
    } finally {
      await stop();
      disk.remove();
    }
  },
);

test("a file that is removed while it is open is written anew, with all that was in it", async () => {
  const folder = makeFolder();
  const it = await started(folder);
  await it.store.write(NS, [put("before")]);
  for (const name of ["state.db", "state.db-wal", "state.db-shm"]) rmSync(join(folder, name));
  await it.store.write(NS, [put("after")]);
  await it.stop();
  const later = await started(folder);
  expect((await later.store.list(NS, { limit: 10 })).entries.map(({ key }) => key)).toEqual([
    "after",
    "before",
  ]);
});
