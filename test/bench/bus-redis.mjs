// Measures bus-redis and, for comparison, bare XADDs of the same client, on a server that syncs every write, in one run:
//   npm run build && node test/bench/bus-redis.mjs [--messages 20000] [--kept 10000]
import { parseArgs } from "node:util";
import { createRedisBus } from "../../dist/plugins/bus-redis/redis-bus.js";
import { measure, tell } from "./measure.mjs";
import { startRedis } from "./redis-server.mjs";

const { values: options } = parseArgs({
  options: { messages: { type: "string", default: "20000" }, kept: { type: "string", default: "10000" } },
});
const messages = Number(options.messages);
const payload = Buffer.alloc(200, "x");

/** Measures a reader while 64 messages at a time are published. */
async function read(bus, count) {
  const over = new AbortController();
  const reading = bus.subscribe({ filter: "read/+", signal: over.signal })[Symbol.asyncIterator]();
  let next = reading.next();
  const began = performance.now();
  const publishing = measure("publishes with a reader", 64, count, () =>
    bus.publish({ topic: "read/a", payload }),
  );
  for (let seen = 0; seen < count; seen++) {
    await next;
    next = reading.next();
  }
  tell("messages read", count, performance.now() - began);
  await publishing;
  over.abort();
  await next;
}

/** Measures members of one group that take and acknowledge waiting messages. */
async function acknowledge(bus, group, members, count) {
  const over = new AbortController();
  const options = { filter: "read/+", group, after: "0", ackWaitMs: 60_000, signal: over.signal };
  let acknowledged = 0;
  const began = performance.now();
  const member = async () => {
    for await (const { ack } of bus.consume({ ...options, maxInFlight: 1 })) {
      await ack();
      if (++acknowledged === count) over.abort();
    }
  };
  await Promise.all(Array.from({ length: members }, member));
  tell(`taken and acknowledged one by one, ${members} members`, acknowledged, performance.now() - began);
}

const server = await startRedis("bus-redis");
const { redis } = server;
const { bus, start, stop } = createRedisBus(server.ctx, {
  ...server.options,
  maxMessages: Number(options.kept),
  maxBytes: 2 ** 30,
  maxGroups: 1_000,
});
try {
  await start();
  for (const lanes of [1, 64]) {
    const count = lanes === 1 ? messages / 10 : messages;
    await measure("bare XADD", lanes, count, () =>
      redis.xadd("bare", "MAXLEN", 10_000, "*", "payload", payload),
    );
    const publish = (index) => bus.publish({ topic: `agents/a${index % 1_000}/inbox`, payload });
    await measure("publishes", lanes, count, publish);
  }
  await measure("publishes with keep: false", 64, messages, () =>
    bus.publish({ topic: "t", payload }, { keep: false }),
  );
  await redis.del("bare");
  const used = /used_memory:(\d+)/.exec(await redis.info("memory"))?.[1];
  console.log(
    `memory of the server: ${Math.round(used / 1_024)} KiB, ${await redis.xlen("openstarry:bus:messages")} kept`,
  );
  const began = performance.now();
  for (let index = 0; index < 100; index++) await bus.drop(`openstarry/events/+/a${index}`);
  tell("drops that find nothing", 100, performance.now() - began);
  await read(bus, messages);
  for (const members of [1, 8]) await acknowledge(bus, `of ${members}`, members, 500 * members);
} finally {
  await stop();
  await server.stop();
}
