import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, afterEach, beforeAll, describe, expect, it, test } from "vitest";
import type { BusDelivery, BusMessage, ConsumeOptions, MessageBus } from "../../../../core/index.js";
import { messageBus } from "../../../../core/index.js";
import busRedis from "../../../../plugins/bus-redis/index.js";
import { scripts } from "../../../../plugins/bus-redis/scripts.js";
import { createTopicMatcher, luaPatternOf } from "../../../../plugins/bus-redis/topic-patterns.js";
import { topicMatches } from "../../../../plugins/kit/topics.js";
import { testMessageBus } from "../../../contract/index.js";
import { createPluginHost } from "../../../helpers/plugin-host.js";
import { noRedis, startRedis, type TestRedis } from "../../../helpers/redis-server.js";
import { waitFor } from "../../../helpers/wait-for.js";

type Options = NonNullable<Parameters<typeof busRedis>[0]>;

const home = mkdtempSync(join(tmpdir(), "openstarry-bus-redis-"));
let server: TestRedis;
let prefixes = 0;
beforeAll(async () => {
  if (!noRedis) server = await startRedis({ appendfsync: "always" });
});
afterAll(async () => {
  await server?.stop();
  rmSync(home, { recursive: true });
});

/** Creates a bus with a prefix of its own on the server, or with the given one. */
function subject(options: Options = {}) {
  const given = { url: server.url, prefix: `p${++prefixes}`, ...options };
  const host = createPluginHost({ plugins: [busRedis(given)], home });
  return {
    bus: host.use(messageBus) as MessageBus,
    host,
    root: `${given.prefix}:bus`,
    start: () => host.start(),
    stop: () => host.stop(),
    reopen: () => subject(given),
  };
}

const runs: typeof test | typeof test.skip = noRedis ? test.skip : test;
testMessageBus({ test: runs, factory: () => subject(), capabilities: { durable: true } });

const opened: ReturnType<typeof subject>[] = [];
let over = new AbortController();
afterEach(async () => {
  over.abort();
  over = new AbortController();
  for (const it of opened.splice(0)) await it.stop();
});

async function open(options?: Options) {
  const it = subject(options);
  opened.push(it);
  await it.start();
  return it;
}

const send = (bus: MessageBus, topic: string, text = topic) =>
  bus.publish({ topic, payload: Buffer.from(text) });
const textOf = ({ payload }: BusMessage) => Buffer.from(payload).toString();

/** Reads the texts of the first kept messages. */
async function readKept(bus: MessageBus, count: number, after = "0"): Promise<string[]> {
  const seen: string[] = [];
  for await (const message of bus.subscribe({ filter: "#", after, signal: over.signal })) {
    seen.push(textOf(message));
    if (seen.length === count) break;
  }
  return seen;
}

function member(bus: MessageBus, options: Partial<ConsumeOptions> = {}) {
  const iterator = bus
    .consume({
      filter: "#",
      group: "g",
      after: "0",
      ackWaitMs: 60_000,
      maxInFlight: 1,
      signal: over.signal,
      ...options,
    })
    [Symbol.asyncIterator]();
  return {
    async next(): Promise<BusDelivery> {
      return (await iterator.next()).value;
    },
    leave: () => iterator.return?.(),
  };
}

const describeDelivery = ({ message, attempt }: BusDelivery) => `${textOf(message)} attempt ${attempt}`;

describe.skipIf(noRedis)("the limits of bus-redis", () => {
  it("the oldest messages are evicted above max_messages, and reading from an evicted position starts at the oldest", async () => {
    const { bus, root } = await open({ max_messages: 3 });
    const { position = "" } = await send(bus, "t", "1");
    for (const text of ["2", "3", "4", "5"]) await send(bus, "t", text);
    expect(await readKept(bus, 3)).toEqual(["3", "4", "5"]);
    expect(await readKept(bus, 3, position)).toEqual(["3", "4", "5"]);
    expect(await server.client.hlen(`${root}:payloads`)).toBe(3);
    expect(await server.client.hget(`${root}:state`, "bytes")).toBe("6");
  });

  it("the oldest messages are evicted above max_size, and the newest is kept whatever its size", async () => {
    const { bus } = await open({ max_size: "100B" });
    for (const text of ["a".repeat(60), "b".repeat(60)]) await send(bus, "t", text);
    expect(await readKept(bus, 1)).toEqual(["b".repeat(60)]);
    await send(bus, "t", "c".repeat(200));
    expect(await readKept(bus, 1)).toEqual(["c".repeat(200)]);
  });

  it("a group forgets evicted messages that wait for redelivery, however long their delay", async () => {
    const { bus, root } = await open({ max_messages: 2 });
    const one = member(bus, { maxInFlight: 9 });
    for (let index = 0; index < 5; index++) {
      await send(bus, "t", String(index));
      await (await one.next()).nack(3_600_000);
    }
    expect(await server.client.zcard(`${root}:due:["#","g"]`)).toBe(2);
    expect(await server.client.hlen(`${root}:group:["#","g"]`)).toBe(2 + 2);
  });

  it("above max_groups, the group without members for the longest time is removed, but none with members", async () => {
    const { bus } = await open({ max_groups: 3 });
    for (const text of ["1", "2"]) await send(bus, "t", text);
    const stays = member(bus, { group: "stays", maxInFlight: 2 });
    await stays.next();
    for (const group of ["a", "b", "a"]) {
      const visitor = member(bus, { group });
      await (await visitor.next()).ack();
      await visitor.leave();
    }
    await member(bus, { group: "c" }).next();
    // "b" is a new group and starts at the first message, since "c" has replaced it; "a" makes room for "b".
    for (const group of ["b", "d"])
      expect(describeDelivery(await member(bus, { group }).next())).toBe("1 attempt 1");
    expect(describeDelivery(await stays.next())).toBe("2 attempt 1");
  });

  it("messages for a slow reader wait on the server, not in the daemon", async () => {
    setFlagsFromString("--expose_gc");
    const collect: () => void = runInNewContext("gc");
    const held = () => {
      collect();
      return process.memoryUsage().arrayBuffers;
    };
    const { bus } = await open();
    const slow = bus.subscribe({ filter: "#", signal: over.signal })[Symbol.asyncIterator]();
    const first = slow.next();
    await send(bus, "t", "first");
    await first;
    const before = held();
    const payload = new Uint8Array(2 ** 20);
    for (let index = 0; index < 48; index++) await bus.publish({ topic: `t/${index}`, payload });
    for (let index = 0; index < 24; index++) await bus.publish({ topic: "t", payload }, { keep: false });
    expect((await slow.next()).value.topic).toBe("t/0");
    // Collected buffers are freed a little later.
    await waitFor(() => held() - before < 16 * 2 ** 20, { what: "the memory to be free", diagnose: held });
    for (let index = 1; index < 48; index++) {
      const { value } = await slow.next();
      expect([value.topic, value.payload.byteLength]).toEqual([`t/${index}`, 2 ** 20]);
    }
  });

  it("a reader keeps its place when 64 MiB of transient messages arrive at once", async () => {
    const { bus } = await open();
    const reader = bus.subscribe({ filter: "t", signal: over.signal })[Symbol.asyncIterator]();
    let next = reader.next();
    const payload = new Uint8Array(2 ** 20);
    const many = Array.from({ length: 64 }, () => bus.publish({ topic: "t", payload }, { keep: false }));
    await Promise.all(many);
    await send(bus, "t", "kept");
    let lost = 64;
    for (; (await next).value.position === undefined; next = reader.next()) lost--;
    expect(textOf((await next).value)).toBe("kept");
    expect(lost).toBeGreaterThan(0);
  });
});

describe.skipIf(noRedis)("consumer groups of bus-redis under load", () => {
  beforeAll(() => server.client.config("SET", "appendfsync", "no"));
  afterAll(() => server.client.config("SET", "appendfsync", "always"));

  it("100,000 messages wait for a group without members and do not enlarge its state", async () => {
    const { bus, root } = await open({ max_messages: 200_000 });
    for (const [group, filter] of [
      ["all", "#"],
      ["rare", "rare/+"],
    ] as const) {
      const visitor = member(bus, { group, filter });
      const first = visitor.next();
      await send(bus, "rare/first");
      await (await first).ack();
      await visitor.leave();
    }
    await member(bus, { group: "all" })
      .next()
      .then((it) => it.ack());
    let left = 100_000;
    const publisher = async () => {
      for (let index = left--; index > 0; index = left--)
        await send(bus, `busy/${index % 10}`, String(index));
    };
    await Promise.all(Array.from({ length: 256 }, publisher));
    await send(bus, "rare/last");
    const size = async (filter: string, group: string) => [
      await server.client.hlen(`${root}:group:["${filter}","${group}"]`),
      await server.client.zcard(`${root}:due:["${filter}","${group}"]`),
    ];
    expect(await size("#", "all")).toEqual([2, 0]);

    const rare = member(bus, { group: "rare", filter: "rare/+", maxInFlight: 10 });
    expect(describeDelivery(await rare.next())).toBe("rare/first attempt 1");
    expect(describeDelivery(await rare.next())).toBe("rare/last attempt 1");
    expect(await size("rare/+", "rare")).toEqual([4, 2]);
    const all = member(bus, { group: "all", maxInFlight: 1_000 });
    for (let index = 0; index < 500; index++) await (await all.next()).ack();
    expect(await size("#", "all")).toEqual([2, 0]);
    over.abort();
    let count = 0;
    const signal = new AbortController().signal;
    for await (const _ of bus.subscribe({ filter: "busy/#", after: "0", signal }))
      if (++count === 100_000) break;
  }, 180_000);
});

describe.skipIf(noRedis)("daemons that share a Redis bus", () => {
  it("daemons with the same prefix share messages and groups, and a member takes over from another daemon's", async () => {
    const one = await open();
    const two = one.reopen();
    opened.push(two);
    await two.start();
    const [here, there] = [member(one.bus), member(two.bus)];
    const [first, second] = [here.next(), there.next()];
    for (const text of ["1", "2", "3"]) await send(one.bus, "t", text);
    expect([describeDelivery(await first), describeDelivery(await second)].sort()).toEqual([
      "1 attempt 1",
      "2 attempt 1",
    ]);
    await (await first).ack();
    const third = here.next();
    expect(describeDelivery(await third)).toBe("3 attempt 1");
    // The other daemon's message comes when that daemon stops, long before its ackWaitMs is over.
    await (await third).ack();
    const fourth = here.next();
    await two.stop();
    expect(describeDelivery(await fourth)).toBe(`${textOf((await second).message)} attempt 2`);
  });

  it("daemons notify each other of late acknowledgements and of removed groups", async () => {
    const one = await open();
    const two = one.reopen();
    opened.push(two);
    await two.start();
    const hasty = member(one.bus, { ackWaitMs: 50 });
    const first = hasty.next();
    await send(one.bus, "t", "1");
    const late = await first;
    const patient = member(two.bus);
    expect(describeDelivery(await patient.next())).toBe("1 attempt 2");
    const next = patient.next();
    await send(one.bus, "t", "2");
    await late.ack();
    // The message is acknowledged for this member too, so it has room again.
    expect(describeDelivery(await next)).toBe("2 attempt 1");
    const ended = patient.next();
    await one.bus.removeGroup({ filter: "#", group: "g" });
    expect(await ended).toBeUndefined();
  });

  it("daemons do not touch keys with another prefix", async () => {
    const [one, other] = [await open(), await open()];
    await send(other.bus, "t", "stays");
    const theirs = member(other.bus);
    await theirs.next();
    await server.client.set("foreign", "1");
    await one.bus.drop("#");
    await one.bus.removeGroup({ filter: "#", group: "g" });
    expect(await readKept(other.bus, 1)).toEqual(["stays"]);
    expect(await server.client.hlen(`${other.root}:group:["#","g"]`)).toBe(3);
    expect(await server.client.get("foreign")).toBe("1");
    expect(await server.client.keys(`${one.root}*`)).toEqual([]);
  });

  it("messages of other programs on the channel are ignored", async () => {
    const { bus, root } = await open();
    const reader = bus.subscribe({ filter: "#", signal: over.signal })[Symbol.asyncIterator]();
    const first = reader.next();
    for (const noise of ["", "{", "[1]", '["kept"]', '["passing","0"]', '["begun",null,"1"]', '{"kept":1}']) {
      await server.client.publish(root, noise);
    }
    await send(bus, "t", "1");
    expect(textOf((await first).value)).toBe("1");
  });
});

describe.skipIf(noRedis)("the clock of the Redis server", () => {
  it("positions keep rising and delays become no longer when the clock is set back", async () => {
    const { bus, root } = await open();
    const ahead = Date.now() + 3_600_000;
    await server.client.hset(`${root}:state`, "last", `${ahead}000`, "clock", String(ahead));
    const one = member(bus, { ackWaitMs: 200, after: `${ahead}000`, maxInFlight: 2 });
    const first = one.next();
    const { position = "" } = await send(bus, "t", "1");
    expect(position).toBe(`${ahead}001`);
    expect(describeDelivery(await first)).toBe("1 attempt 1");
    const second = await one.next();
    expect(describeDelivery(second)).toBe("1 attempt 2");
    await second.nack(300);
    // The same state as if the clock had been ahead until now.
    await server.client.zincrby(`${root}:due:["#","g"]`, 3_600_000, position);
    await server.client.hset(`${root}:state`, "clock", String(ahead + 3_600_000));
    expect(describeDelivery(await one.next())).toBe("1 attempt 3");
  });

  it("positions after a loss of all data are greater, and a position from the future reads everything", async () => {
    const { bus, root } = await open();
    const { position = "" } = await send(bus, "t", "old");
    await server.client.del(await server.client.keys(`${root}:*`));
    await send(bus, "t", "1");
    expect(await readKept(bus, 1, position)).toEqual(["1"]);
    expect(await readKept(bus, 1, "9999999999999999")).toEqual(["1"]);
    expect(describeDelivery(await member(bus, { after: "9999999999999999" }).next())).toBe("1 attempt 1");
  });
});

describe.skipIf(noRedis)("topic filters on the Redis server", () => {
  it("a filter matches the same topics in Lua and in the daemon", async () => {
    const levels = ["a", "b", "+", "é", "a.b", "%a", "^$", "a-", "(a)", "[a]", "日", "_", "a b", ""];
    const draw = (from: readonly string[], count: number) =>
      Array.from({ length: count }, () => from[Math.floor(Math.random() * from.length)] ?? "").join("/");
    const pairs = Array.from({ length: 2_000 }, () => {
      const end = Math.random() < 0.3 ? "/#" : "";
      const wanted = draw([...levels, "+", "+", "a"], 1 + Math.floor(Math.random() * 3));
      const topic = draw([...levels, "a", "a"], 1 + Math.floor(Math.random() * 4));
      return [`${wanted}${end}`, topic] as const;
    });
    const args = pairs.flatMap(([filter, topic]) => [topic, luaPatternOf(filter)]);
    const asked = `${scripts.startReader.replace(/notify\('begun'.*/, "")}
      local all = {}
      for i = 1, #ARGV, 2 do all[#all + 1] = matches(ARGV[i], ARGV[i + 1]) and 1 or 0 end
      return all`;
    const answers = (await server.client.eval(asked, 1, "root", ...args)) as number[];
    const differing = pairs.filter(([filter, topic], index) => {
      // Topics have no empty levels, so "+" need not match one.
      if (topic.split("/").includes("")) return false;
      const matches = topicMatches(filter, topic);
      return matches !== (answers[index] === 1) || matches !== createTopicMatcher(filter)(topic);
    });
    expect(differing).toEqual([]);
    expect(answers.filter((it) => it === 1).length).toBeGreaterThan(50);
  });
});

describe.skipIf(noRedis)("bus-redis and its server", () => {
  it("a lost server rejects all calls and readers and degrades the plugin, until it is back", async () => {
    const own = await startRedis({ appendfsync: "always" });
    try {
      const { bus, host } = await open({ url: own.url });
      expect(bus.capabilities.durable).toBe(true);
      const waiting = [
        bus.subscribe({ filter: "#", signal: over.signal })[Symbol.asyncIterator]().next(),
        member(bus).next(),
      ];
      // The server receives the messages and does not answer.
      await own.client.client("PAUSE", 60_000);
      const ends = Promise.allSettled([...waiting, send(bus, "t", "1"), send(bus, "t", "2")]);
      await own.kill();
      for (const end of await ends) {
        expect(end).toMatchObject({ status: "rejected", reason: { code: "bus_unavailable" } });
      }
      await expect(send(bus, "t")).rejects.toMatchObject({ code: "bus_unavailable" });
      await expect(readKept(bus, 1)).rejects.toMatchObject({ code: "bus_unavailable" });
      await waitFor(() => bus.health()?.includes(own.url), { what: "the reason" });
      await waitFor(() => host.problems.length > 0, { what: "the plugin to be degraded" });
      await own.start();
      await waitFor(() => bus.health() === undefined && host.problems.length === 0, { what: "the bus" });
      await send(bus, "t", "again");
      expect((await readKept(bus, 1)).at(-1)).toBe("again");
    } finally {
      await own.stop();
    }
  });

  it("the plugin starts although the server rejects the password, and shows no password", async () => {
    const own = await startRedis({ requirepass: "pass-of-the-server" });
    const file = join(home, "password");
    writeFileSync(file, "another-password");
    try {
      const { bus, host } = await open({ url: own.url, password_file: file });
      await waitFor(() => bus.health()?.includes("rejects the password"), { what: "the reason" });
      const said = JSON.stringify([host.log, host.problems, await send(bus, "t").catch(String)]);
      expect(said).toContain("rejects the password");
      expect(said).not.toMatch(/pass-of-the-server|another-password/);
    } finally {
      await own.stop();
    }
  });

  it("a hanging server does not delay the stop", async () => {
    const hanging = await startRedis();
    try {
      const it = await open({ url: hanging.url });
      process.kill(hanging.pid(), "SIGSTOP");
      const began = performance.now();
      await it.stop();
      // Without a limit of its own, the stop would take ten seconds.
      expect(performance.now() - began).toBeLessThan(8_000);
    } finally {
      process.kill(hanging.pid(), "SIGCONT");
      await hanging.stop();
    }
  }, 30_000);

  it("the permissions listed in the README are enough", async () => {
    const own = await startRedis({ appendfsync: "always" });
    const file = join(home, "password");
    writeFileSync(file, "secret-of-agents");
    const rights = ["~mine:*", "&mine:*", "+@all", "-@dangerous", "-@admin"];
    await own.client.call("ACL", "SETUSER", "agents", "on", ">secret-of-agents", ...rights);
    try {
      const options = { url: `${own.url}?user=agents`, password_file: file, prefix: "mine" };
      const { bus } = await open(options);
      await send(bus, "a/b", "1");
      const one = member(bus);
      const delivery = await one.next();
      expect(describeDelivery(delivery)).toBe("1 attempt 1");
      await delivery.nack();
      await (await one.next()).ack();
      await one.leave();
      expect(await readKept(bus, 1)).toEqual(["1"]);
      await bus.drop("a/#");
      await bus.removeGroup({ filter: "#", group: "g" });
      expect(bus.capabilities.durable).toBe(false);
    } finally {
      await own.stop();
    }
  });

  it("durable is what the server's configuration says, or the option", async () => {
    const own = await startRedis({ appendfsync: "everysec" });
    try {
      expect((await open({ url: own.url })).bus.capabilities.durable).toBe(false);
      expect((await open({ url: own.url, durable: true })).bus.capabilities.durable).toBe(true);
    } finally {
      await own.stop();
    }
  });
});

describe.skipIf(noRedis)("bus-redis after kill -9 of its server under load", () => {
  it("no acknowledged message is lost or reordered, and groups get all of them", async () => {
    const own = await startRedis({ appendfsync: "always" });
    try {
      const { bus, host } = await open({ url: own.url });
      const acknowledged = new Set<string>();
      const seen: BusMessage[] = [];
      const delivered = new Set<string>();
      const failures = new Set<unknown>();
      let isDone = false;
      const again = async (act: () => Promise<void>) => {
        while (!isDone) {
          await act().catch((error: { code?: unknown }) => failures.add(error.code));
          await new Promise(setImmediate);
        }
      };
      const publishers = [0, 1, 2, 3].map((publisher) => {
        let number = 0;
        return again(async () => {
          const text = `${publisher}:${number++}`;
          await send(bus, `from/${publisher}`, text);
          acknowledged.add(text);
        });
      });
      const reader = again(async () => {
        const after = seen.at(-1)?.position ?? "0";
        for await (const it of bus.subscribe({ filter: "from/+", after, signal: over.signal })) seen.push(it);
      });
      const members = [0, 1].map(() =>
        again(async () => {
          const options = { filter: "#", group: "all", after: "0", ackWaitMs: 300, maxInFlight: 5 };
          for await (const it of bus.consume({ ...options, signal: over.signal })) {
            delivered.add(textOf(it.message));
            await it.ack();
          }
        }),
      );
      for (let round = 0; round < 4; round++) {
        const before = acknowledged.size;
        await waitFor(() => acknowledged.size > before + 200, { what: "traffic", timeoutMs: 20_000 });
        await own.kill();
        await waitFor(() => host.problems.length > 0, { what: "the plugin to be degraded" });
        await own.start();
        await waitFor(() => host.problems.length === 0, { what: "the recovery", timeoutMs: 10_000 });
      }
      const before = acknowledged.size;
      await waitFor(() => acknowledged.size > before + 200, { what: "traffic", timeoutMs: 20_000 });
      isDone = true;
      await Promise.all(publishers);
      const missing = () => {
        const read = new Set(seen.map(textOf));
        return [...acknowledged].filter((text) => !read.has(text) || !delivered.has(text));
      };
      await waitFor(() => missing().length === 0, {
        what: "all of it",
        timeoutMs: 20_000,
        diagnose: missing,
      });
      over.abort();
      await Promise.all([reader, ...members]);

      expect([...failures]).toEqual(["bus_unavailable"]);
      const positions = seen.map(({ position }) => Number(position));
      expect(positions).toEqual([...new Set(positions)].sort((a, b) => a - b));
      for (const publisher of [0, 1, 2, 3]) {
        const numbers = seen
          .map((it) => textOf(it).split(":").map(Number))
          .filter(([it]) => it === publisher);
        const order = numbers.map(([, number]) => number as number);
        expect(order).toEqual([...new Set(order)].sort((a, b) => a - b));
      }
    } finally {
      await own.stop();
    }
  }, 120_000);
});
