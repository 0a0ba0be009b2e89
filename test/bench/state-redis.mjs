// Measures state-redis beside bare commands of the same client, on a server that syncs every write, in one run:
//   npm run build && node test/bench/state-redis.mjs [--keys 1000000] [--requests 20000]
import { parseArgs } from "node:util";
import { createRedisStore } from "../../dist/plugins/state-redis/redis-store.js";
import { measure, tell } from "./measure.mjs";
import { startRedis } from "./redis-server.mjs";

const { values: options } = parseArgs({
  options: {
    keys: { type: "string", default: "1000000" },
    requests: { type: "string", default: "20000" },
  },
});
const keys = Number(options.keys);
const requests = Number(options.requests);

const keyOf = (index) => `key/${String(index).padStart(8, "0")}`;
const anyValue = (index) => ({ index, text: "x".repeat(80) });
/** Spread over all keys, and the same in every run. */
const anyKey = (index) => keyOf((index * 7_919) % keys);

/** How long anybody else had to wait for the server while this was done. */
async function whileAsked(what, redis, act) {
  let [over, longest] = [false, 0];
  const ask = async () => {
    while (!over) {
      const began = performance.now();
      await redis.ping();
      longest = Math.max(longest, performance.now() - began);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  };
  const asked = ask();
  await act();
  over = true;
  await asked;
  console.log(`${what}: the longest wait of another client ${longest.toFixed(0)} ms`);
}

const server = await startRedis("state-redis");
const { redis } = server;
const { store, start, stop } = createRedisStore(server.ctx, {
  ...server.options,
  maxDeletions: 10_000,
});
try {
  await start();
  for (const lanes of [1, 64]) {
    await measure("bare SET", lanes, requests, (index) =>
      redis.set(keyOf(index), JSON.stringify(anyValue(index))),
    );
    await measure("bare GET", lanes, requests, async (index) => JSON.parse(await redis.get(keyOf(index))));
  }
  await redis.flushall();
  const began = performance.now();
  for (let at = 0; at < keys; at += 100) {
    const batch = Array.from({ length: 100 }, (_, index) => ({
      op: "put",
      key: keyOf(at + index),
      value: anyValue(at + index),
    }));
    await store.write("shared", batch);
  }
  tell(`filled with ${keys} keys, 100 to a write`, keys, performance.now() - began);
  const used = /used_memory:(\d+)/.exec(await redis.info("memory"))?.[1];
  console.log(`memory of the server: ${Math.round(used / 2 ** 20)} MiB`);
  for (const lanes of [1, 64]) {
    await measure("puts", lanes, requests, (index) =>
      store.write("shared", [{ op: "put", key: anyKey(index), value: anyValue(index) }]),
    );
    await measure("gets", lanes, requests, (index) => store.get("shared", anyKey(index)));
  }
  await whileAsked("pages of 1,000", redis, () =>
    measure("pages of 1,000", 1, Math.min(200, keys / 1_000), (index) =>
      store.list("shared", { limit: 1_000, after: anyKey(index) }),
    ),
  );
  await whileAsked("the drop of them all", redis, () => store.drop("shared"));
} finally {
  stop();
  await server.stop();
}
