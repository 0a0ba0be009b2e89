import { afterEach, expect, test } from "vitest";
import { fixtureAgent } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { operatorOf } from "../helpers/operator.js";
import { environOf, processesOf, seeProcess } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const LANES = 8;

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

/** Pids by agent, of the agents proper: without their shims. */
function running(home: string): Map<string, number[]> {
  const all = processesOf(home).filter(({ pid }) => environOf(pid)["OPENSTARRY_AGENT_ID"] !== undefined);
  const found = new Map<string, number[]>();
  for (const { pid, ppid } of all) {
    if (!all.some((other) => other.pid === ppid)) continue;
    const id = environOf(pid)["OPENSTARRY_AGENT_ID"] ?? "";
    found.set(id, [...(found.get(id) ?? []), pid]);
  }
  return found;
}

test.each([1, 10, 25])(
  "kill -9 after %i answers: what was acknowledged is there, and nothing is there twice",
  async (enough) => {
    const Sleeper = { template_id: "Sleeper", ...fixtureAgent("sleeper.sh") };
    const it = await startDaemon({ templates: [Sleeper] });
    daemon = it;
    const operator = operatorOf(it.home);
    const acknowledged = new Map<string, { pid: number; run_id: string }>();
    let count = 0;
    // Each asks for one agent after another, until nobody answers any more.
    const lane = async () => {
      for (;;) {
        const agent_id = `agent-${count++}`;
        const { status, json } = await operator.post("/agents", { agent_id, template_id: "Sleeper" });
        expect(status).toBe(201);
        acknowledged.set(agent_id, { pid: json["pid"] as number, run_id: json["run_id"] as string });
        if (acknowledged.size === enough) process.kill(it.pid() as number, "SIGKILL");
      }
    };
    const ends = await Promise.allSettled(Array.from({ length: LANES }, lane));
    for (const end of ends)
      expect(end).toMatchObject({ reason: { code: expect.stringMatching(/ECONN|EPIPE/) } });
    await waitFor(() => it.pid() === undefined, { what: "the lock to be free" });

    await it.start();
    const known = await waitFor(
      async () => {
        const { items } = await it.client.agents.list({ limit: 1000 });
        return items.every(({ state }) => state === "running") && items;
      },
      { what: "every known agent to run", timeoutMs: 15_000, diagnose: () => it.client.agents.list() },
    );
    for (const [agent_id, { pid, run_id }] of acknowledged) {
      // Adopted: the process that the answer told of.
      expect(known.find((agent) => agent.agent_id === agent_id)).toMatchObject({ pid, run_id, restarts: 0 });
      expect(seeProcess(pid)?.pid).toBe(pid);
    }
    const pids = known.map(({ agent_id, pid }) => [agent_id, [pid]]);
    expect([...running(it.home)].sort()).toEqual(pids.sort());
  },
);
