import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type StateChange, type StateStore, type StateWrite, stateStore } from "../../../../core/index.js";
import stateRedis from "../../../../plugins/state-redis/index.js";
import { testStateStore } from "../../../contract/index.js";
import { createPluginHost } from "../../../helpers/plugin-host.js";
import { noRedis, startRedis, type TestRedis } from "../../../helpers/redis-server.js";
import { waitFor } from "../../../helpers/wait-for.js";

type Options = NonNullable<Parameters<typeof stateRedis>[0]>;

let server: TestRedis;
beforeAll(async () => {
  if (!noRedis) server = await startRedis({ appendfsync: "always" });
});
afterAll(async () => server?.stop());

let prefixes = 0;
function subject(options: Options = {}) {
  const given = { url: server.url, prefix: `p${++prefixes}`, ...options };
  const host = createPluginHost({ plugins: [stateRedis(given)] });
  return {
    store: host.use(stateStore) as StateStore,
    problems: host.problems,
    options: given,
    start: () => host.start(),
    stop: () => host.stop(),
    reopen: () => subject(given),
  };
}

const run: (name: string, act: () => Promise<void>) => void = noRedis ? test.skip : test;
testStateStore({ test: run, factory: () => subject(), capabilities: { durable: true } });

const NS = "shared";
type Subject = ReturnType<typeof subject>;
const open: Subject[] = [];
async function started(options?: Options): Promise<Subject> {
  const it = subject(options);
  open.push(it);
  await it.start();
  return it;
}
afterEach(async () => {
  for (const it of open.splice(0)) await it.stop();
});

const put = (key: string, value: unknown = 1, more: object = {}): StateWrite => ({
  op: "put",
  key,
  value,
  ...more,
});
const del = (key: string): StateWrite => ({ op: "delete", key });
const describeChange = (change: StateChange) => {
  if (change.type === "gap") return `gap ${change.version}`;
  return change.type === "put" ? `put ${change.entry.key}` : `delete ${change.key} ${change.version}`;
};

/** Reads the first changes of a watch. */
async function firstChanges({ store }: Subject, count: number, after?: number): Promise<string[]> {
  const ended = new AbortController();
  const seen: string[] = [];
  const from = after === undefined ? {} : { after };
  for await (const change of store.watch(NS, { ...from, signal: ended.signal })) {
    seen.push(describeChange(change));
    if (seen.length === count) ended.abort();
  }
  return seen;
}

/** Returns the keys of this store on the server, without their prefix. */
async function keysOf({ options }: Subject): Promise<string[]> {
  const keys = await server.client.keys(`${options.prefix}:*`);
  return keys.map((key) => key.slice(`${options.prefix}:state:`.length)).sort();
}

describe.skipIf(noRedis)("watches of state-redis", () => {
  test("a watch that resumes before the oldest remembered deletion gets a gap first", async () => {
    const it = await started({ max_deletions: 3 });
    await it.store.write(NS, [put("stays")]);
    for (let index = 0; index < 6; index++) await it.store.write(NS, [put(`k${index}`), del(`k${index}`)]);
    // Deletions have the versions 3, 5, 7, 9, 11 and 13.
    expect(await firstChanges(it, 4, 6)).toEqual(["gap 7", "delete k3 9", "delete k4 11", "delete k5 13"]);
    expect(await firstChanges(it, 2, 9)).toEqual(["delete k4 11", "delete k5 13"]);
    expect((await firstChanges(it, 4, 0))[0]).toBe("put stays");
  });

  test("a watch of a dropped namespace gets a gap, and no version is repeated", async () => {
    const it = await started();
    await it.store.write(NS, [put("a"), put("b")]);
    await it.store.drop(NS);
    expect(await it.store.namespaces()).toEqual([]);
    expect(await keysOf(it)).toEqual(["floor"]);
    expect(await firstChanges(it, 1, 2)).toEqual(["gap 0"]);
    const [entry] = await it.store.write(NS, [put("c")]);
    expect(entry?.version).toBeGreaterThan(2);
    expect(await firstChanges(it, 2, 2)).toEqual(["gap 3", "put c"]);
  });

  test("a watch gets the changes of another daemon", async () => {
    const here = await started();
    const there = await started(here.options);
    const changes = firstChanges(here, 2);
    const ended = firstChanges(here, 9);
    await there.store.write(NS, [put("a"), put("b")]);
    expect(await changes).toEqual(["put a", "put b"]);
    await there.store.drop(NS);
    expect(await ended).toEqual(["put a", "put b"]);
  });

  test("expired entries are deleted once when two daemons look for them", async () => {
    const here = await started();
    const there = await started(here.options);
    const both = [firstChanges(here, 11, 0), firstChanges(there, 11, 0)];
    await here.store.write(NS, [
      put("stays"),
      ...Array.from({ length: 5 }, (_, i) => put(`${i}`, 1, { ttlMs: 50 })),
    ]);
    const [one, other] = await Promise.all(both);
    expect(one).toEqual(other);
    expect(one?.slice(6).map((text) => text.slice(0, 6))).toEqual(Array(5).fill("delete"));
    expect((await there.store.write(NS, [put("last")]))[0]?.version).toBe(12);
    expect((await keysOf(here)).filter((key) => /due|ends/.test(key))).toEqual([]);
  });

  test("watches reject when the server is lost, and resume without missing a change", async () => {
    const own = await startRedis({ appendfsync: "always" });
    try {
      const it = await started({ url: own.url });
      const { signal } = new AbortController();
      const changes = it.store.watch(NS, { signal })[Symbol.asyncIterator]();
      const first = changes.next();
      await it.store.write(NS, [put("a")]);
      expect(describeChange((await first).value)).toBe("put a");
      const next = changes.next();
      const lost = expect(next).rejects.toMatchObject({ code: "state_unavailable" });
      await own.kill();
      await lost;
      await expect(it.store.get(NS, "a")).rejects.toMatchObject({ code: "state_unavailable" });
      await expect(it.store.write(NS, [put("a")])).rejects.toMatchObject({ code: "state_unavailable" });
      await expect(it.store.watch(NS, { signal })[Symbol.asyncIterator]().next()).rejects.toMatchObject({
        code: "state_unavailable",
      });
      expect(it.problems).toHaveLength(1);
      await own.start();
      await waitFor(() => it.store.health() === undefined, { what: "the connection" });
      await it.store.write(NS, [put("b")]);
      expect(await firstChanges(it, 1, 1)).toEqual(["put b"]);
      expect(it.problems).toEqual([]);
    } finally {
      await own.stop();
    }
  });

  test("a watch whose reader pauses gets the latest values afterwards", async () => {
    const it = await started();
    await it.store.write(NS, [put("a", "old"), put("b", "old")]);
    const ended = new AbortController();
    const changes = it.store.watch(NS, { after: 0, signal: ended.signal })[Symbol.asyncIterator]();
    await changes.next();
    await it.store.write(NS, [put("b", "new"), put("c")]);
    // Longer than a page stays fresh.
    await new Promise((resolve) => setTimeout(resolve, 150));
    const seen = [(await changes.next()).value, (await changes.next()).value];
    expect(seen.map((change) => change.entry.value)).toEqual(["new", 1]);
    ended.abort();
  });

  test("large values are read one at a time", async () => {
    const it = await started();
    const value = "x".repeat(2 ** 20 - 2);
    for (let index = 0; index < 12; index++) await it.store.write(NS, [put(`large/${index}`, value)]);
    expect(await firstChanges(it, 12, 0)).toEqual(
      Array.from({ length: 12 }, (_, index) => `put large/${index}`),
    );
  });
});

describe.skipIf(noRedis)("lists of state-redis", () => {
  test("a list skips any number of expired entries", async () => {
    const it = await started();
    const key = (index: number) => `k/${String(index).padStart(5, "0")}`;
    for (let at = 0; at < 3_000; at += 100) {
      const writes = Array.from({ length: 100 }, (_, index) =>
        put(key(at + index), 1, at + index === 5 || at + index === 2_990 ? {} : { ttlMs: 3_600_000 }),
      );
      await it.store.write(NS, writes);
    }
    // Makes the entries expire without being deleted.
    const name = `${it.options.prefix}:state:values:${NS}`;
    const rows = await server.client.hgetall(name);
    const over = Object.entries(rows).flatMap(([field, row]) => [
      field,
      row.replace(/^(\d+ \d+) [1-9]\d*/, "$1 1"),
    ]);
    await server.client.hset(name, ...over);
    expect((await it.store.list(NS, { limit: 1 })).entries.map((entry) => entry.key)).toEqual([key(5)]);
    expect((await it.store.list(NS, { limit: 1 })).more).toBe(true);
    const both = await it.store.list(NS, { prefix: "k/", limit: 2 });
    expect([both.entries.length, both.more]).toEqual([2, false]);
  });

  test("a prefix matches only keys that start with it, also with the highest code point", async () => {
    const it = await started();
    const last = "\u{10ffff}";
    await it.store.write(NS, [put(last), put(`${last}${last}`), put(`a${last}`), put("b")]);
    const keys = async (prefix: string) =>
      (await it.store.list(NS, { prefix, limit: 9 })).entries.map(({ key }) => key);
    expect(await keys("a")).toEqual([`a${last}`]);
    expect(await keys(last)).toEqual([last, `${last}${last}`]);
  });
});

describe.skipIf(noRedis)("state-redis and its server", () => {
  test("durable is whether the server syncs every write, or the option", async () => {
    expect((await started()).store.capabilities.durable).toBe(true);
    await server.client.config("SET", "appendfsync", "everysec");
    expect((await started()).store.capabilities.durable).toBe(false);
    expect((await started({ durable: true })).store.capabilities.durable).toBe(true);
    await server.client.config("SET", "appendfsync", "always");
    expect(subject({ durable: false }).store.capabilities.durable).toBe(false);
    expect(() => subject({ url: undefined, managed: true, durable: true } as Options)).toThrow(
      'requires "url"',
    );
  });

  test("a server that may evict keys degrades the plugin and can be used", async () => {
    const own = await startRedis({ maxmemory: "64mb", "maxmemory-policy": "allkeys-lru" });
    try {
      const it = await started({ url: own.url });
      expect(it.problems).toEqual([
        expect.stringContaining("set maxmemory-policy allkeys-lru to noeviction"),
      ]);
      expect(it.store.health()).toBeUndefined();
      await it.store.write(NS, [put("a")]);
    } finally {
      await own.stop();
    }
  });

  test("a server that loads its data is reported as such and used afterwards", async () => {
    const slow = { "key-load-delay": "300", "loading-process-events-interval-bytes": "1024" };
    const own = await startRedis({ appendfsync: "no", ...slow });
    try {
      const it = await started({ url: own.url });
      for (let at = 0; at < 10; at++) {
        await it.store.write(
          NS,
          Array.from({ length: 100 }, (_, index) => put(`${at}/${index}`)),
        );
      }
      await own.kill();
      const up = own.start();
      await waitFor(() => it.store.health()?.includes("is loading its data"), { what: "the words" });
      await expect(it.store.get(NS, "9/99")).rejects.toMatchObject({ code: "state_unavailable" });
      await up;
      await waitFor(() => it.store.health() === undefined, { what: "the connection" });
      expect(await it.store.get(NS, "9/99")).toMatchObject({ value: 1 });
    } finally {
      await own.stop();
    }
  });

  test("a write is refused as a whole when the server is out of memory, and reading works", async () => {
    const own = await startRedis({ maxmemory: "8mb" });
    try {
      const it = await started({ url: own.url });
      const value = "x".repeat(2 ** 20 - 2);
      const fill = async () => {
        for (let index = 0; index < 20; index++)
          await it.store.write(NS, [put(`k/${index}`, value), put("n", index)]);
      };
      await expect(fill()).rejects.toMatchObject({
        code: "state_unavailable",
        message: expect.stringContaining("out of memory"),
      });
      const last = Number((await it.store.get(NS, "n"))?.value);
      expect(await it.store.get(NS, `k/${last}`)).toBeDefined();
      expect(await it.store.get(NS, `k/${last + 1}`)).toBeUndefined();
      for (let index = 0; index <= last; index++) await it.store.write(NS, [del(`k/${index}`)]);
      await it.store.write(NS, [put("again")]);
    } finally {
      await own.stop();
    }
  });

  test("the permissions listed in the README are enough", async () => {
    const rights = ["~mine:*", "&mine:*", "+@all", "-@dangerous", "-@admin"];
    const file = join(mkdtempSync(join(tmpdir(), "openstarry-acl-")), "password");
    await server.client.call("ACL", "SETUSER", "agent-store", "on", ">pass-word", ...rights);
    try {
      writeFileSync(file, "pass-word\n");
      const url = `${server.url}?user=agent-store`;
      const it = await started({ url, password_file: file, prefix: "mine" });
      await it.store.write(NS, [put("a", 1, { ttlMs: 60_000 }), put("b"), del("b")]);
      expect((await it.store.list(NS, { limit: 9 })).entries).toHaveLength(1);
      expect(await it.store.namespaces()).toEqual([NS]);
      expect(it.store.capabilities.durable).toBe(false);
      await it.store.drop(NS);
    } finally {
      await server.client.call("ACL", "DELUSER", "agent-store");
      rmSync(dirname(file), { recursive: true });
    }
  });
});
