import assert from "node:assert/strict";
import type { StateChange, StateEntry, StateStore, StateWrite, WatchQuery } from "../../core/index.js";

/** One implementation under test, over storage that no other test uses. */
export interface StateStoreSubject {
  store: StateStore;
  start?(): Promise<void> | void;
  stop?(): Promise<void> | void;
  /** A second subject over the same storage, as a later daemon would open it. Needed when `durable`. */
  reopen?(): Promise<StateStoreSubject> | StateStoreSubject;
}

export interface StateStoreSuite {
  /** Registers one test: `test` of vitest, node:test, mocha and others. */
  test: (name: string, run: () => Promise<void>) => void;
  /** Makes a subject, not started. */
  factory: () => Promise<StateStoreSubject> | StateStoreSubject;
  /** What the implementation promises: it selects the tests. */
  capabilities: StateStore["capabilities"];
}

/**
 * The contract of `core/contracts/state-store.ts` as tests. They drive the implementation directly and in
 * real time.
 */
export function testStateStore(suite: StateStoreSuite): void {
  testValues(suite);
  testExpectations(suite);
  testLists(suite);
  testTimeToLive(suite);
  testWatches(suite);
  testNamespaces(suite);
  testAvailability(suite);
  if (suite.capabilities.durable) testDurability(suite);
}

const NS = "agent:one";
const put = (key: string, value: unknown, more: Partial<StateWrite> = {}): StateWrite =>
  ({ op: "put", key, value, ...more }) as StateWrite;
const del = (key: string, more: Partial<StateWrite> = {}): StateWrite =>
  ({ op: "delete", key, ...more }) as StateWrite;

/** Runs one test on a subject that is started before it and stopped after it. */
function withStore({ test, factory }: StateStoreSuite) {
  return (name: string, run: (store: StateStore, subject: StateStoreSubject) => Promise<void>): void =>
    test(`state store: ${name}`, async () => {
      const subject = await factory();
      await subject.start?.();
      try {
        await run(subject.store, subject);
      } finally {
        await subject.stop?.();
      }
    });
}

async function putOne(store: StateStore, key: string, value: unknown): Promise<StateEntry> {
  const [entry] = await store.write(NS, [put(key, value)]);
  assert(entry, "write answers the entry that a put made");
  return entry;
}

function testValues(suite: StateStoreSuite): void {
  const it = withStore(suite);

  it("a value comes back as it was put", async (store) => {
    const values = {
      text: "a NUL \0, a quote ', \u{1f680} and a line\nend",
      empty: "",
      zero: 0,
      float: -1.5e-7,
      big: Number.MAX_SAFE_INTEGER,
      no: false,
      nothing: null,
      list: [1, [2, {}], []],
      deep: { a: { b: { c: ["é", { "": 1, "key.with $signs": 2 }] } } },
    };
    for (const [key, value] of Object.entries(values)) await putOne(store, key, value);
    for (const [key, value] of Object.entries(values)) {
      assert.deepEqual((await store.get(NS, key))?.value, value, key);
    }
  });

  it("an entry says its key, its version, and when it was made", async (store) => {
    const before = Date.now();
    const made = await putOne(store, "k", 1);
    assert.deepEqual(await store.get(NS, "k"), made);
    assert.equal(made.key, "k");
    assert(Number.isInteger(made.version) && made.version >= 1);
    assert.match(made.updated_at, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    assert(Math.abs(Date.parse(made.updated_at) - before) < 60_000);
    assert.equal(made.expires_at, undefined);
  });

  it("what is not there is undefined, and its deletion changes nothing", async (store) => {
    const first = await putOne(store, "other", 1);
    assert.equal(await store.get(NS, "absent"), undefined);
    assert.deepEqual(await store.write(NS, [del("absent")]), [undefined]);
    assert.equal((await putOne(store, "other", 2)).version, first.version + 1);
  });

  it("a deletion answers what was there, and counts as a change", async (store) => {
    const made = await putOne(store, "k", "v");
    assert.deepEqual(await store.write(NS, [del("k")]), [made]);
    assert.equal(await store.get(NS, "k"), undefined);
    assert((await putOne(store, "k", "w")).version > made.version + 1);
  });

  it("versions rise with every change of the namespace", async (store) => {
    const versions: number[] = [];
    for (const key of ["a", "b", "a", "c", "a"]) versions.push((await putOne(store, key, 1)).version);
    assert.deepEqual(
      versions,
      [...versions].sort((a, b) => a - b),
    );
    assert.equal(new Set(versions).size, versions.length);
  });

  it("keys of every kind are kept apart", async (store) => {
    const keys = [
      "a",
      "A",
      "a ",
      "a/b",
      "a/b/c",
      "a:b",
      "%2F",
      "..",
      "é",
      "e\u0301",
      "_%",
      "*",
      "x".repeat(512),
      `${"x".repeat(511)}y`,
      "\u{1f680}",
    ];
    for (const [index, key] of keys.entries()) await putOne(store, key, index);
    for (const [index, key] of keys.entries()) assert.equal((await store.get(NS, key))?.value, index, key);
  });

  it("a value of one MiB is kept", async (store) => {
    const value = "x".repeat(2 ** 20 - 2);
    await putOne(store, "large", value);
    assert.equal((await store.get(NS, "large"))?.value, value);
  });

  it("what is done with a value afterwards does not change what is kept", async (store) => {
    const value = { list: [1] };
    const made = await putOne(store, "k", value);
    value.list.push(2);
    (made.value as typeof value).list.push(3);
    assert.deepEqual((await store.get(NS, "k"))?.value, { list: [1] });
  });
}

function testExpectations(suite: StateStoreSuite): void {
  const it = withStore(suite);

  it("a put that expects absence happens once", async (store) => {
    await store.write(NS, [put("lock", "mine", { expect: "absent" })]);
    await refused(store.write(NS, [put("lock", "yours", { expect: "absent" })]), "lock", 1);
    assert.equal((await store.get(NS, "lock"))?.value, "mine");
  });

  it("a write that expects a version happens at that version only", async (store) => {
    const first = await putOne(store, "k", 1);
    const [second] = await store.write(NS, [put("k", 2, { expect: first.version })]);
    const version = second?.version ?? 0;
    await refused(store.write(NS, [put("k", 3, { expect: first.version })]), "k", version);
    await refused(store.write(NS, [del("k", { expect: first.version })]), "k", version);
    assert.equal((await store.get(NS, "k"))?.value, 2);
    await store.write(NS, [del("k", { expect: version })]);
    await refused(store.write(NS, [put("k", 4, { expect: version })]), "k", 0);
    assert.equal(await store.get(NS, "k"), undefined);
  });

  it("of a hundred who expect the same version, one is answered well", async (store) => {
    const { version } = await putOne(store, "counter", 0);
    const all = await Promise.allSettled(
      Array.from({ length: 100 }, (_, index) =>
        store.write(NS, [put("counter", index + 1, { expect: version })]),
      ),
    );
    assert.equal(all.filter(({ status }) => status === "fulfilled").length, 1);
    for (const result of all) {
      if (result.status === "rejected") assert.equal(result.reason.code, "state_conflict");
    }
  });

  it("a counter that many raise by compare-and-set loses nothing", async (store) => {
    await putOne(store, "counter", 0);
    const raise = async (): Promise<void> => {
      for (;;) {
        const found = await store.get(NS, "counter");
        try {
          await store.write(NS, [
            put("counter", Number(found?.value) + 1, { expect: found?.version ?? "absent" }),
          ]);
          return;
        } catch (error) {
          assert.equal((error as { code?: string }).code, "state_conflict");
        }
      }
    };
    await Promise.all(Array.from({ length: 10 }, raise));
    assert.equal((await store.get(NS, "counter"))?.value, 10);
  });

  it("writes happen all together or not at all", async (store) => {
    const first = await putOne(store, "a", 1);
    await putOne(store, "b", 1);
    const answers = await store.write(NS, [put("a", 2, { expect: first.version }), del("b"), put("c", 3)]);
    assert.deepEqual(
      answers.map((entry) => entry?.value),
      [2, 1, 3],
    );
    assert((answers[2]?.version ?? 0) > (answers[0]?.version ?? 0));
    await refused(store.write(NS, [put("a", 9), put("d", 9), put("c", 9, { expect: 1_000_000 })]), "c");
    const now = await Promise.all(["a", "b", "c", "d"].map((key) => store.get(NS, key)));
    assert.deepEqual(
      now.map((entry) => entry?.value),
      [2, undefined, 3, undefined],
    );
  });

  it("a write sees what came before it in the same batch", async (store) => {
    await store.write(NS, [put("k", 1, { expect: "absent" }), del("k"), put("k", 2, { expect: "absent" })]);
    assert.equal((await store.get(NS, "k"))?.value, 2);
    await refused(store.write(NS, [put("n", 1), put("n", 2, { expect: "absent" })]), "n");
    assert.equal(await store.get(NS, "n"), undefined);
  });
}

/** Rejected with `state_conflict`, which names the key and what was found. */
async function refused(write: Promise<unknown>, key: string, version?: number): Promise<void> {
  await assert.rejects(write, (error: { code?: string; data?: Record<string, unknown> }) => {
    assert.equal(error.code, "state_conflict");
    assert.equal(error.data?.["key"], key);
    if (version !== undefined) assert.equal(error.data?.["version"], version);
    return true;
  });
}

function testLists(suite: StateStoreSuite): void {
  const it = withStore(suite);
  const keysOf = ({ entries }: { entries: StateEntry[] }) => entries.map(({ key }) => key);

  it("lists are in the order of the keys' bytes", async (store) => {
    const keys = ["b", "a", "B", "a/2", "a/10", "é", "\u{1f680}", "\uffee", "a ", "_"];
    for (const key of keys) await putOne(store, key, key);
    const { entries, more } = await store.list(NS, { limit: 1_000 });
    const sorted = [...keys].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    assert.deepEqual(
      entries.map(({ value }) => value),
      sorted,
    );
    assert.equal(more, false);
  });

  it("a prefix means these very characters", async (store) => {
    for (const key of ["a_b", "axb", "a%b", "a*b", "a", "b", "a\\b", "A_b", "a_"])
      await putOne(store, key, 1);
    assert.deepEqual(keysOf(await store.list(NS, { prefix: "a_", limit: 10 })), ["a_", "a_b"]);
    assert.deepEqual(keysOf(await store.list(NS, { prefix: "a%", limit: 10 })), ["a%b"]);
    assert.deepEqual(keysOf(await store.list(NS, { prefix: "a*", limit: 10 })), ["a*b"]);
    assert.deepEqual(keysOf(await store.list(NS, { prefix: "a\\", limit: 10 })), ["a\\b"]);
    assert.deepEqual(keysOf(await store.list(NS, { prefix: "none", limit: 10 })), []);
  });

  it("pages meet end to end, whatever happens between them", async (store) => {
    const keys = Array.from({ length: 250 }, (_, index) => `k/${String(index).padStart(4, "0")}`);
    for (let at = 0; at < keys.length; at += 50) {
      await store.write(
        NS,
        keys.slice(at, at + 50).map((key) => put(key, key)),
      );
    }
    const seen: string[] = [];
    for (let after: string | undefined; ; ) {
      const page = await store.list(NS, {
        prefix: "k/",
        limit: 99,
        ...(after === undefined ? {} : { after }),
      });
      seen.push(...keysOf(page));
      after = seen.at(-1);
      if (!page.more) break;
      // What lies behind the reader does not move it.
      await store.write(NS, [del(seen[0] ?? ""), put("k/!", 0)]);
    }
    assert.deepEqual(seen, keys);
  });

  it("a page of large values stays small, and goes on", async (store) => {
    const value = "x".repeat(2 ** 20 - 2);
    for (let index = 0; index < 9; index++) await putOne(store, `large/${index}`, value);
    const first = await store.list(NS, { limit: 100 });
    assert(first.entries.length >= 1 && first.entries.length <= 6, `${first.entries.length} entries`);
    assert.equal(first.more, true);
    const rest = await store.list(NS, { limit: 100, after: first.entries.at(-1)?.key ?? "" });
    assert.equal(rest.entries[0]?.key, `large/${first.entries.length}`);
  });

  it("a namespace that nobody has used is empty", async (store) => {
    assert.deepEqual(await store.list("agent:nobody", { limit: 10 }), { entries: [], more: false });
  });
}

function testTimeToLive(suite: StateStoreSuite): void {
  const it = withStore(suite);

  it("an entry whose time is over is not there, and told as deleted", async (store) => {
    const ended = new AbortController();
    const changes = collect(store, { signal: ended.signal });
    await putOne(store, "long", 1);
    const [entry] = await store.write(NS, [put("brief", 1, { ttlMs: 300 })]);
    const expiresAtMs = Date.parse(entry?.expires_at ?? "");
    assert.equal(expiresAtMs - Date.parse(entry?.updated_at ?? ""), 300);
    const found = await store.get(NS, "brief");
    // A machine that is busy may have taken all of that time.
    assert(found?.value === 1 || Date.now() >= expiresAtMs, "it is there until its time is over");
    await until(changes, ({ type }) => type === "delete");
    assert.equal(await store.get(NS, "brief"), undefined);
    assert.deepEqual(
      (await store.list(NS, { limit: 10 })).entries.map(({ key }) => key),
      ["long"],
    );
    ended.abort();
    assert.deepEqual(changes.seen.map(tell), ["put long", "put brief", "delete brief"]);
  });

  it("it may be made anew as if it had never been, before anybody has cleared it away", async (store) => {
    await store.write(NS, [put("k", 1, { ttlMs: 1 })]);
    for (let tries = 0; (await store.get(NS, "k")) && tries < 1_000; tries++) await pause(2);
    const [entry] = await store.write(NS, [put("k", 2, { expect: "absent" })]);
    assert.equal(entry?.expires_at, undefined);
    assert.equal((await store.get(NS, "k"))?.value, 2);
  });

  it("a later put without an end takes the end away", async (store) => {
    await store.write(NS, [put("k", 1, { ttlMs: 200 })]);
    const { version } = await putOne(store, "k", 2);
    await store.write(NS, [put("mark", 1, { ttlMs: 400 })]);
    for (let tries = 0; (await store.get(NS, "mark")) && tries < 1_000; tries++) await pause(20);
    assert.equal((await store.get(NS, "k"))?.version, version);
  });
}

function testWatches(suite: StateStoreSuite): void {
  const it = withStore(suite);

  it("a watch tells what comes, in order", async (store) => {
    const ended = new AbortController();
    await putOne(store, "before", 0);
    const changes = collect(store, { signal: ended.signal });
    await putOne(store, "a", 1);
    await until(changes, (change) => tell(change) === "put a");
    await store.write(NS, [put("b", 2), del("a"), del("absent")]);
    await until(changes, (change) => tell(change) === "delete a");
    ended.abort();
    await changes.done;
    assert.deepEqual(changes.seen.map(tell), ["put a", "put b", "delete a"]);
    const versions = changes.seen.map(versionOf);
    assert.deepEqual(
      versions,
      [...versions].sort((x, y) => x - y),
    );
  });

  it("a watch after a version tells the last change of each key since, then what comes", async (store) => {
    const { version } = await putOne(store, "old", 0);
    await putOne(store, "a", 1);
    await putOne(store, "b", 1);
    await store.write(NS, [del("old"), put("a", 2)]);
    const ended = new AbortController();
    const changes = collect(store, { after: version, signal: ended.signal });
    await until(changes, (change) => tell(change) === "put a");
    await putOne(store, "late", 1);
    await until(changes, (change) => tell(change) === "put late");
    ended.abort();
    assert.deepEqual(changes.seen.map(tell), ["put b", "delete old", "put a", "put late"]);
    assert.equal((changes.seen[2] as { entry: StateEntry }).entry.value, 2);
  });

  it("a watch from 0 tells everything that is there", async (store) => {
    for (let index = 0; index < 30; index++) await putOne(store, `k/${index}`, index);
    const ended = new AbortController();
    const changes = collect(store, { after: 0, prefix: "k/", signal: ended.signal });
    await until(changes, (change) => tell(change) === "put k/29");
    ended.abort();
    assert.equal(new Set(changes.seen.map(tell)).size, 30);
  });

  it("a prefix leaves out the others", async (store) => {
    const ended = new AbortController();
    const changes = collect(store, { prefix: "a_", signal: ended.signal });
    await store.write(NS, [put("axb", 1), put("a_b", 2), put("b", 3), put("a_c", 4)]);
    await until(changes, (change) => tell(change) === "put a_c");
    ended.abort();
    assert.deepEqual(changes.seen.map(tell), ["put a_b", "put a_c"]);
  });

  it("who is told of changes nobody waits for ends when asked to", async (store) => {
    const ended = new AbortController();
    const changes = collect(store, { signal: ended.signal });
    ended.abort();
    await changes.done;
    assert.deepEqual(changes.seen, []);
    await changesOf(store, { signal: AbortSignal.abort() }).next();
  });

  it("one that reads slowly misses no key's last value", async (store) => {
    const ended = new AbortController();
    const changes = changesOf(store, { signal: ended.signal });
    const first = changes.next();
    for (let round = 0; round < 5; round++) {
      for (let key = 0; key < 20; key++) await putOne(store, `k/${key}`, round);
    }
    await putOne(store, "end", 1);
    const last = new Map<string, unknown>();
    for (let { value } = await first; ; { value } = await changes.next()) {
      assert.equal(value.type, "put");
      if (value.entry.key === "end") break;
      last.set(value.entry.key, value.entry.value);
    }
    ended.abort();
    assert.deepEqual([...new Set(last.values())], [4]);
    assert.equal(last.size, 20);
  });
}

function testNamespaces(suite: StateStoreSuite): void {
  const it = withStore(suite);

  it("namespaces know nothing of each other", async (store) => {
    await store.write("shared", [put("k", "shared")]);
    await store.write("shared2", [put("k", "other")]);
    await store.write("agent:a", [put("k", "a")]);
    assert.equal((await store.get("shared", "k"))?.value, "shared");
    assert.equal((await store.get("agent:a", "k"))?.value, "a");
    assert.equal((await store.list("shared", { limit: 10 })).entries.length, 1);
    assert.deepEqual((await store.namespaces()).sort(), ["agent:a", "shared", "shared2"]);
  });

  it("a namespace that was dropped is empty, its watches end, and the others stay", async (store) => {
    await store.write("agent:a", [put("k", 1), put("l", 2)]);
    await store.write("agent:ab", [put("k", 3)]);
    const ended = new AbortController();
    const watch = collect(store, { signal: ended.signal }, "agent:a");
    await store.drop("agent:a");
    await watch.done;
    await store.drop("agent:never");
    assert.equal(await store.get("agent:a", "k"), undefined);
    assert.deepEqual(await store.list("agent:a", { limit: 10 }), { entries: [], more: false });
    assert.equal((await store.get("agent:ab", "k"))?.value, 3);
    await store.write("agent:a", [put("k", "anew", { expect: "absent" })]);
    assert.equal((await store.get("agent:a", "k"))?.value, "anew");
  });
}

function testAvailability(suite: StateStoreSuite): void {
  const it = withStore(suite);

  it("it is healthy while it is started, and may be stopped twice", async (store, subject) => {
    assert.equal(store.health(), undefined);
    await subject.stop?.();
    await subject.stop?.();
  });
}

function testDurability(suite: StateStoreSuite): void {
  const it = withStore(suite);

  it("a later daemon finds values, versions and ends as they were", async (store, subject) => {
    await putOne(store, "a", 1);
    await store.write(NS, [del("a")]);
    const kept = await putOne(store, "b", { deep: [1] });
    const [brief] = await store.write(NS, [put("brief", 1, { ttlMs: 3_600_000 })]);
    await subject.stop?.();
    const later = await subject.reopen?.();
    assert(later, "a durable store's subject can be opened again");
    await later.start?.();
    try {
      assert.deepEqual(await later.store.get(NS, "b"), kept);
      assert.deepEqual(await later.store.get(NS, "brief"), brief);
      assert.equal(await later.store.get(NS, "a"), undefined);
      const [next] = await later.store.write(NS, [put("c", 1)]);
      assert((next?.version ?? 0) > (brief?.version ?? 0), "versions go on");
      const ended = new AbortController();
      const changes = collect(later.store, { after: 1, signal: ended.signal });
      await until(changes, (change) => tell(change) === "put c");
      ended.abort();
      assert.deepEqual(changes.seen.map(tell), ["delete a", "put b", "put brief", "put c"]);
    } finally {
      await later.stop?.();
    }
  });
}

interface Collected {
  seen: StateChange[];
  /** Resolves when the watch has ended. */
  done: Promise<void>;
  changed: () => void;
}

function changesOf(store: StateStore, query: WatchQuery, namespace = NS) {
  return store.watch(namespace, query)[Symbol.asyncIterator]();
}

/** Subscribed when this returns. */
function collect(store: StateStore, query: WatchQuery, namespace = NS): Collected {
  const changes = changesOf(store, query, namespace);
  const collected: Collected = { seen: [], changed: () => {}, done: Promise.resolve() };
  const read = async () => {
    for (let next = await changes.next(); !next.done; next = await changes.next()) {
      collected.seen.push(next.value);
      collected.changed();
    }
  };
  collected.done = read();
  return collected;
}

const PATIENCE_MS = 20_000;

async function until(collected: Collected, is: (change: StateChange) => boolean): Promise<void> {
  let isLate = false;
  setTimeout(() => {
    isLate = true;
  }, PATIENCE_MS).unref();
  while (!collected.seen.some(is)) {
    assert(!isLate, `not told within ${PATIENCE_MS} ms; told ${collected.seen.map(tell)}`);
    const told = new Promise<void>((resolve) => {
      collected.changed = resolve;
    });
    await Promise.race([told, pause(100)]);
  }
}

function tell(change: StateChange): string {
  if (change.type === "gap") return `gap ${change.version}`;
  return `${change.type} ${change.type === "put" ? change.entry.key : change.key}`;
}

function versionOf(change: StateChange): number {
  return change.type === "put" ? change.entry.version : change.version;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
