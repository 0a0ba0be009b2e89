import { afterAll, afterEach, beforeAll, describe, expect, it, test } from "vitest";
import type { z } from "zod";
import { type StateChange, type StateStore, type StateWrite, stateStore } from "../../../core/index.js";
import stateRedis from "../../../plugins/state-redis/index.js";
import { testStateStore } from "../../contract/index.js";
import { createPluginHost, type PluginHost } from "../../helpers/plugin-host.js";
import { noRedis, startRedis, type TestRedis } from "../../helpers/redis-server.js";
import { waitFor } from "../../helpers/wait-for.js";

type Options = Parameters<typeof stateRedis>[0];

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
    host,
    start: () => host.start(),
    stop: () => host.stop(),
    reopen: () => subject(given),
  };
}

const runs: typeof test | typeof test.skip = noRedis ? test.skip : test;
testStateStore({ test: runs, factory: () => subject(), capabilities: { durable: true } });
