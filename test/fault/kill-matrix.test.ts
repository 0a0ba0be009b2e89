// After Docker's TestDaemonRestartKillContainers: restart policy × what becomes of agents at the daemon's
// stop × how the daemon ends.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import type { Agent } from "../../core/index.js";
import { fixtureAgent } from "../helpers/agents.js";
import { afterEndOf, agentWhen, crash, killAgent } from "../helpers/crash.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { seeProcess } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const POLICIES = ["never", "on-failure", "always"] as const;
/** With these an agent that ended well is not started again. */
const STAYING_ENDED = ["never", "on-failure"] as const;

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

/** For each policy an agent that runs; and agents that have ended well by themselves. */
async function start(on_daemon_stop: string): Promise<TestDaemon> {
  const gate = { gate: { type: "string" } };
  const templates = POLICIES.flatMap((policy) => {
    const common = { restart: { policy, backoff: { min: "1ms", max: "1ms" } }, liveness: { type: "pid" } };
    const ends = fixtureAgent("ends-when-told.sh", "{{params.gate}}", "0");
    return [
      { template_id: `Runs-${policy}`, ...fixtureAgent("sleeper.sh"), ...common },
      { template_id: `Ends-${policy}`, ...ends, params: gate, ...common },
    ];
  });
  daemon = await startDaemon({ config: { on_daemon_stop }, templates });
  const params = { gate: join(daemon.project, "gate") };
  for (const policy of POLICIES) {
    await daemon.client.agents.create({ agent_id: `runs-${policy}`, template_id: `Runs-${policy}` });
  }
  for (const policy of STAYING_ENDED)
    await daemon.client.agents.create({ agent_id: `ends-${policy}`, template_id: `Ends-${policy}`, params });
  writeFileSync(params.gate, "");
  for (const policy of STAYING_ENDED)
    await daemon.client.agents.wait(`ends-${policy}`, { for: "ended", timeoutMs: 10_000 });
  return daemon;
}

async function endBy(it: TestDaemon, signal: "SIGKILL" | "SIGTERM"): Promise<void> {
  if (signal === "SIGKILL") return crash(it);
  process.kill(it.pid() as number, "SIGTERM");
  await waitFor(() => it.pid() === undefined, { what: "its end", timeoutMs: 15_000 });
}

/** What a daemon that comes after must find of an agent that ran on, or that was ended with the last one. */
function expected({ pid, run_id, started_at }: Agent, livesOn: boolean) {
  const common = { state: "running", desired: "running", health: "healthy", restarts: 0 };
  if (livesOn) return { ...common, pid, run_id, started_at };
  return { ...common, last_exit: { pid, run_id, cause: "daemon_stop", success: true } };
}

describe.each(["keep", "stop"] as const)("on_daemon_stop: %s", (onDaemonStop) => {
  test.each(["SIGKILL", "SIGTERM"] as const)(
    "%s of the daemon: agents are as they were, whatever their restart policy, and the policy still holds",
    async (signal) => {
      const it = await start(onDaemonStop);
      const get = (policy: string) => it.client.agents.get(`runs-${policy}`);
      const before = await Promise.all(POLICIES.map(get));
      const livesOn = signal === "SIGKILL" || onDaemonStop === "keep";

      await endBy(it, signal);
      for (const { pid } of before) expect(seeProcess(pid as number)?.pid).toBe(livesOn ? pid : undefined);
      await it.start();

      for (const [index, policy] of POLICIES.entries()) {
        const was = before[index] as Agent;
        const is = await agentWhen(it, `runs-${policy}`, ({ health }) => health === "healthy");
        expect([policy, is]).toMatchObject([policy, expected(was, livesOn)]);
        expect([policy, is.pid === was.pid]).toEqual([policy, livesOn]);
        expect(seeProcess(is.pid as number)?.pid).toBe(is.pid);
      }
      // Who had ended by himself stays so.
      for (const policy of STAYING_ENDED) {
        const ended = { state: "exited", restarts: 0, last_exit: { kind: "exited", code: 0, cause: "self" } };
        expect(await it.client.agents.get(`ends-${policy}`)).toMatchObject(ended);
      }
      for (const policy of POLICIES) {
        const now = await get(policy);
        await killAgent(now);
        const after = await afterEndOf(it, now);
        const returns = policy !== "never";
        expect([policy, after]).toMatchObject([
          policy,
          {
            state: returns ? "running" : "exited",
            restarts: returns ? 1 : 0,
            last_exit: { kind: "signaled", signal: "SIGKILL", cause: "self", success: false },
          },
        ]);
      }
    },
  );
});
