import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, test } from "vitest";
import { type MessageBus, messageBus } from "../../../core/index.js";
import busRedis from "../../../plugins/bus-redis/index.js";
import { createTestHost, testMessageBus } from "../../contract/index.js";
import { noRedis, startRedis, type TestRedis } from "../../helpers/redis-server.js";

type Options = NonNullable<Parameters<typeof busRedis>[0]>;

describe.skipIf(noRedis)("bus-redis", () => {
  let server: TestRedis;
  let folder: string;
  let count = 0;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "openstarry-bus-redis-"));
    server = await startRedis({ appendfsync: "always" });
  });
  afterAll(async () => {
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  /** A bus of its own on the server, by its prefix. */
  function subject(options: Options = {}) {
    const given = { prefix: `test-${count++}`, url: server.url, ...options };
    const host = createTestHost({ plugins: [busRedis(given)], dataDir: folder });
    return {
      bus: host.use(messageBus) as MessageBus,
      logged: host.logged,
      start: () => host.start(),
      stop: () => host.stop(),
      reopen: () => subject(given),
    };
  }

  testMessageBus({ test, factory: () => subject(), capabilities: { durable: true } });
});
