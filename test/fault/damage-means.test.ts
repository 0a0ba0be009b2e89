import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { fixtureAgent } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { processesOf, seeProcess } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const Sleeper = { template_id: "Sleeper", ...fixtureAgent("sleeper.sh") };
const restart = { policy: "always", max_restarts: 2, backoff: { min: "10ms", max: "10ms" } };
const Phoenix = { template_id: "Phoenix", ...fixtureAgent("sleeper.sh"), restart };

let daemon: TestDaemon;
beforeEach(async () => {
  daemon = await startDaemon({ templates: [Sleeper, Phoenix] });
});
afterEach(async () => {
  await daemon.stop();
  for (const { pid } of processesOf(daemon.home)) process.kill(pid, "SIGKILL");
});

const limit = (pid: number, soft: number) =>
  execFileSync("prlimit", ["--pid", String(pid), `--nofile=${soft}:4096`]);

test("without free descriptors no agent is dead, starts wait, and all goes on when there are some again", async () => {
  const { agents } = daemon.client;
  const quiet = await agents.create({ agent_id: "quiet", template_id: "Sleeper" });
  const phoenix = await agents.create({ agent_id: "phoenix", template_id: "Phoenix" });
  const pid = daemon.pid() as number;
  // Fewer than it has: it keeps those, and gets no more.
  limit(pid, 10);
  process.kill(phoenix.pid as number, "SIGKILL");
  await waitFor(() => seeProcess(phoenix.pid as number) === undefined, { what: "its end" });
  const said = () => readFileSync(join(daemon.home, "daemon.log"), "utf8");
  await waitFor(() => said().includes("cannot verify that a run has ended"), {
    what: "the daemon's word on it",
  });
  expect(seeProcess(quiet.pid as number)?.pid).toBe(quiet.pid);

  limit(pid, 1_024);
  const back = await waitFor(
    async () => {
      const agent = await agents.get("phoenix");
      return agent.state === "running" && agent.pid !== phoenix.pid && agent;
    },
    { what: "phoenix", timeoutMs: 40_000, diagnose: () => agents.get("phoenix") },
  );
  expect(back.restarts).toBe(1);
  expect(await agents.get("quiet")).toMatchObject({ pid: quiet.pid, restarts: 0, state: "running" });
  expect(daemon.pid()).toBe(pid);
  expect((await agents.create({ agent_id: "new", template_id: "Sleeper" })).state).toBe("running");
}, 60_000);
