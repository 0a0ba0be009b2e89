import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { fixtureAgent } from "../helpers/agents.js";
import { agentWhen, crash } from "../helpers/crash.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { operatorOf } from "../helpers/operator.js";
import { processesOfAgent } from "../helpers/processes.js";

const machine = mkdtempSync(join(tmpdir(), "openstarry-machine-"));
let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
  rmSync(machine, { recursive: true });
});

const plenty = "MemTotal: 1000000 kB\nMemAvailable: 500000 kB\n";
const nearlyNone = "MemTotal: 1000000 kB\nMemAvailable: 10000 kB\n";

test("starts wait and the least important agent goes while memory is short, over a crash of the daemon too", async () => {
  const template = (template_id: string, priority: number) => ({
    template_id,
    ...fixtureAgent("sleeper.sh"),
    priority,
  });
  const meminfo_file = join(machine, "meminfo");
  const files = { meminfo_file, psi_file: join(machine, "none") };
  const times = { interval: "100ms", calm: "300ms", spacing: "100ms", stop_after: "300ms" };
  writeFileSync(meminfo_file, plenty);
  const it = await startDaemon({
    templates: [template("Master", 0), template("Low", -5), template("Pinned", 1000)],
    config: {
      agents: [{ agent_id: "master", template_id: "Master" }],
      plugins: [["policy-memory-pressure", { ...files, ...times }]],
    },
  });
  daemon = it;
  await it.client.agents.create({ agent_id: "pinned", template_id: "Pinned" });
  await it.client.agents.create({ agent_id: "low", template_id: "Low" });
  const { pid: masterPid } = await it.client.agents.get("master");

  writeFileSync(meminfo_file, nearlyNone);
  const gone = await agentWhen(
    it,
    "low",
    ({ state, reason = "" }) => state === "pending" && reason.startsWith("waits"),
  );
  expect(gone).toMatchObject({
    restarts: 0,
    reason: expect.stringMatching(/^waits: memory pressure: 9.8MiB \(1%\) of memory is available/),
    last_exit: { cause: "policy", actor: "plugin:policy-memory-pressure" },
  });
  expect(processesOfAgent(it.home, "low")).toEqual([]);
  const late = await operatorOf(it.home).post("/agents", { agent_id: "late", template_id: "Low" });
  expect([late.status, late.json["state"]]).toEqual([202, "pending"]);

  await crash(it);
  await it.start();
  expect(await it.client.agents.get("master")).toMatchObject({ state: "running", pid: masterPid });
  expect(await it.client.agents.get("pinned")).toMatchObject({ state: "running", restarts: 0 });
  for (const id of ["low", "late"]) await agentWhen(it, id, ({ state }) => state === "pending");

  writeFileSync(meminfo_file, plenty);
  for (const id of ["low", "late"]) await agentWhen(it, id, ({ state }) => state === "running");
});
