import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { z } from "zod";
import { defineOperation, definePlugin, defineSlot, operation, spawner } from "../../../core/index.js";
import spawnerProcess from "../../../plugins/spawner-process/index.js";
import { createTestHost } from "../../contract/index.js";

const LOGS = { maxSizeBytes: 2 ** 20, keep: 1, merge: false };

const home = mkdtempSync(join(tmpdir(), "openstarry-host-"));
afterAll(() => rmSync(home, { recursive: true, force: true }));

const part = defineSlot<{ name: string }>("test-host.part", "one");
const none = z.strictObject({});

function noting(order: string[]) {
  const note = (name: string) => ({
    start: () => void order.push(`start ${name}`),
    stop: () => void order.push(`stop ${name}`),
  });
  const user = definePlugin({
    name: "user",
    apiVersion: 1,
    requires: [part],
    provides: [operation],
    options: none,
    setup(ctx) {
      const handler = async () => ({ part: ctx.use(part).name, home: ctx.dataDir });
      ctx.provide(
        operation,
        defineOperation({ name: "parts.get", summary: "Which part.", scope: "public", input: none, handler }),
      );
      ctx.log.info({ agents: ctx.agents.list().length }, "set up");
      return note("user");
    },
  });
  const provider = definePlugin({
    name: "provider",
    apiVersion: 1,
    provides: [part],
    options: none,
    setup(ctx) {
      ctx.provide(part, { name: "the part" });
      return note("provider");
    },
  });
  return [user(), provider()];
}

test("plugins are set up, started and stopped as in a daemon, providers first", async () => {
  const order: string[] = [];
  const host = createTestHost({ dataDir: home, plugins: noting(order) });
  expect(order).toEqual([]);
  await host.start();
  const asked = await host.dispatch("parts.get", {}, { kind: "operator", id: "operator" });
  expect(asked).toEqual({ part: "the part", home });
  await host.stop();
  await host.stop();
  expect(order).toEqual(["start provider", "start user", "stop user", "stop provider"]);
  expect(host.logged).toContainEqual({
    level: "info",
    fields: { plugin: "user", agents: 0 },
    message: "set up",
  });
});

test("a requirement that nobody meets is told as the daemon tells it", () => {
  const [user] = noting([]);
  const plugins = user ? [user] : [];
  expect(() => createTestHost({ dataDir: home, plugins })).toThrow(/test-host\.part/);
});

test("a run that one host's spawner started is left to the next host's", async () => {
  const first = createTestHost({ dataDir: home, plugins: [spawnerProcess()] });
  const spawned = await first
    .use(spawner)
    .get("process")
    ?.spawn(
      {
        agentId: "subject",
        runId: "run-1",
        templateId: "T",
        command: "sleep",
        args: ["1000"],
        env: { OPENSTARRY_HOME: home, OPENSTARRY_RUN_ID: "run-1" },
        passEnv: [],
        envFiles: [],
        files: [],
        stop: { signal: "SIGTERM", graceMs: 1_000 },
        logs: LOGS,
      },
      async () => {},
    );
  await first.stop();
  const second = createTestHost({ dataDir: home, plugins: [spawnerProcess()] });
  await second.start();
  const stop = { signal: "SIGKILL", graceMs: 0 };
  const target = spawned?.target;
  const adopted = await second
    .use(spawner)
    .get("process")
    ?.adopt({ agentId: "subject", runId: "run-1", target, stop, logs: LOGS });
  expect(adopted?.handle?.pid).toBe(spawned?.pid);
  await adopted?.handle?.stop(stop);
  await second.stop();
});
