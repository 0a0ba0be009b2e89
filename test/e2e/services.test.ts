import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterEach, expect, test } from "vitest";
import { fixtureAgent } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { environOf, processesOf } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const file = fileURLToPath(new URL("../fixtures/plugins/hosts-service.mjs", import.meta.url));
const needs = { template_id: "Needs", ...fixtureAgent("sleeper.sh"), requires: ["beacon"] };
const ID = "svc:beacon";

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

async function start(options: Record<string, unknown> = {}): Promise<TestDaemon> {
  daemon = await startDaemon({ config: { plugins: [[file, options]] }, templates: [needs] });
  return daemon;
}

function configure({ config }: TestDaemon, plugins: unknown[]): void {
  writeFileSync(config, JSON.stringify({ templates: ["./templates"], plugins }));
}

async function crash(it: TestDaemon): Promise<void> {
  process.kill(it.pid() as number, "SIGKILL");
  await waitFor(() => it.pid() === undefined, { what: "the lock to be free" });
}

const ready = (it: TestDaemon, id = ID) => it.client.agents.wait(id, { for: "ready", timeoutMs: 10_000 });

test("a plugin's service is run like an agent, is seen with --all, and is nobody else's to change", async () => {
  const it = await start();
  const service = await ready(it);
  expect(service).toMatchObject({ agent_id: ID, template_id: "beacon", state: "running" });
  expect((await it.cli(["list"])).stdout).not.toContain(ID);
  expect((await it.cli(["list", "--all"])).stdout).toContain(ID);
  expect((await it.cli(["agent", "status", ID])).stdout).toContain(String(service.pid));
  await waitFor(async () => (await it.cli(["logs", ID])).stdout.includes("up"), { what: "its output" });
  expect((await it.cli(["why", ID])).code).toBe(0);
  expect((await it.client.daemon.status()).agents["running"]).toBe(0);

  for (const verb of ["stop", "start", "restart", "rm"]) {
    const { code, stderr } = await it.cli(["agent", verb, ID]);
    expect([verb, code, stderr]).toEqual([verb, 5, expect.stringContaining("is a service")]);
  }
  expect((await it.cli(["agent", "signal", ID, "-s", "SIGTERM"])).code).toBe(5);
  expect((await ready(it)).run_id).toBe(service.run_id);
  const created = await it.cli(["run", "Needs", "--id", ID]);
  expect([created.code, created.stderr]).toEqual([2, expect.stringContaining("agent_id")]);
});

test("its process has no token, and comes back when it is killed", async () => {
  const it = await start();
  const { pid } = await ready(it);
  const env = environOf(pid as number);
  expect(Object.keys(env).filter((name) => /TOKEN|URL|API/.test(name))).toEqual([]);
  process.kill(pid as number, "SIGKILL");
  const again = await waitFor(
    async () => {
      const now = await it.client.agents.get(ID);
      return now.state === "running" && now.pid !== pid ? now : undefined;
    },
    { what: "its next run" },
  );
  expect(again).toMatchObject({ restarts: 1, last_exit: { kind: "signaled", signal: "SIGKILL" } });
});

test("it is started when an agent wants it, and adopted by the daemon after a kill -9", async () => {
  const it = await start({ lazy: true });
  await expect(it.client.agents.get(ID)).rejects.toMatchObject({ code: "agent_not_found" });
  await it.client.agents.create({ agent_id: "worker", template_id: "Needs" });
  const worker = await ready(it, "worker");
  const service = await ready(it);
  expect(environOf(worker.pid as number)["OPENSTARRY_BEACON_URL"]).toBe("beacon:worker");
  await crash(it);
  await it.start();
  expect(await ready(it)).toMatchObject({ pid: service.pid, run_id: service.run_id, restarts: 0 });
  expect(await ready(it, "worker")).toMatchObject({ pid: worker.pid, restarts: 0 });
});

test("after a change of the config it runs as it now should, and without its plugin not at all", async () => {
  const it = await start({ args: ["one"] });
  const before = await ready(it);
  await crash(it);
  configure(it, [[file, { args: ["two"] }]]);
  await it.start();
  const after = await waitFor(
    async () => {
      const now = await ready(it);
      return now.run_id === before.run_id ? undefined : now;
    },
    { what: "a run of the new kind" },
  );
  expect(after).toMatchObject({
    restarts: 0,
    last_exit: { cause: "restart", actor: "plugin:hosts-service" },
  });
  await waitFor(async () => (await it.cli(["logs", ID])).stdout.includes("up two"), { what: "its output" });
  await crash(it);
  configure(it, []);
  await it.start();
  await waitFor(() => processesOf(it.home).every(({ pid }) => pid === it.pid()), { what: "its end" });
  await expect(it.client.agents.get(ID)).rejects.toMatchObject({ code: "agent_not_found" });
});
