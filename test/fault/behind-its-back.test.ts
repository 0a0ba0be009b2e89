// After Docker's TestDaemonRestartWithUnpausedRunningContainer: what changes while no daemon looks.
import { appendFileSync, existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Agent } from "../../core/index.js";
import { fixtureAgent } from "../helpers/agents.js";
import { afterEndOf, agentWhen, crash, killAgent } from "../helpers/crash.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { seeProcess } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const restart = { policy: "on-failure", backoff: { min: "1ms", max: "1ms" } };
const Ends = {
  template_id: "Ends",
  ...fixtureAgent("ends-when-told.sh", "{{params.gate}}", "7"),
  params: { gate: { type: "string" } },
  restart,
  liveness: { type: "pid" },
};

let it: TestDaemon;
beforeEach(async () => {
  it = await startDaemon({ templates: [Ends] });
});
afterEach(() => it.stop());

const gate = (id: string) => join(it.project, `gate-${id}`);

async function startAll<Id extends string>(ids: readonly Id[]): Promise<Record<Id, Agent>> {
  const start = async (agent_id: Id) => {
    const params = { gate: gate(agent_id) };
    return [agent_id, await it.client.agents.create({ agent_id, template_id: "Ends", params })];
  };
  return Object.fromEntries(await Promise.all(ids.map(start)));
}

/** Lets this run end, and no later one. */
async function openGate({ agent_id, pid }: Agent): Promise<void> {
  writeFileSync(gate(agent_id), "");
  await waitFor(() => !seeProcess(pid as number), { what: `the end of ${agent_id}` });
  rmSync(gate(agent_id));
}

/** The agent that was: the same process, the same run, and somebody sees to its health again. */
async function expectAdopted({ agent_id, pid, run_id }: Agent): Promise<void> {
  const agent = await agentWhen(it, agent_id, ({ health }) => health === "healthy");
  expect(agent).toMatchObject({ agent_id, pid, run_id, state: "running", restarts: 0 });
}

async function startedAgain(agent: Agent): Promise<Agent> {
  const after = await afterEndOf(it, agent);
  expect(after).toMatchObject({ agent_id: agent.agent_id, state: "running", restarts: 1 });
  return after;
}

test("state changed behind its back: agents that were paused when the daemon was killed", async () => {
  const { resumed, paused, killed } = await startAll(["resumed", "paused", "killed"]);
  for (const { agent_id, pid } of [resumed, paused, killed]) {
    await it.client.agents.signal(agent_id, "SIGSTOP");
    await waitFor(() => seeProcess(pid as number)?.state === "T", { what: `${agent_id} to be stopped` });
  }
  await crash(it);
  process.kill(resumed.pid as number, "SIGCONT");
  await killAgent(killed);
  await it.start();

  await expectAdopted(resumed);
  await openGate(resumed);
  const ended = await startedAgain(resumed);
  expect(ended.last_exit).toMatchObject({ kind: "exited", code: 7, cause: "self", run_id: resumed.run_id });

  await expectAdopted(paused);
  expect(seeProcess(paused.pid as number)?.state).toBe("T");
  const final = await it.client.agents.stop("paused");
  expect(final).toMatchObject({ state: "stopped", last_exit: { signal: "SIGTERM", success: true } });
  expect(seeProcess(paused.pid as number)).toBeUndefined();

  const after = await startedAgain(killed);
  expect(after.last_exit).toMatchObject({ signal: "SIGKILL", cause: "self", run_id: killed.run_id });
  expect(after.pid).not.toBe(killed.pid);
});

describe("state changed behind its back: files of a run are gone or garbled", () => {
  const folder = ({ agent_id }: Agent, ...path: string[]) => join(it.home, "agents", agent_id, ...path);
  const status = (agent: Agent) => folder(agent, "runs", `${agent.run_id}.status`);
  const remove = (path: string) => rmSync(path, { recursive: true });
  const exited = { kind: "exited", code: 7 };
  /** Nobody can know: never a success that nobody has seen. */
  const lost = { kind: "lost" };
  /** What is done, and what can still be known of the end of the run after it. */
  const losses: Record<string, [object, (agent: Agent) => void]> = {
    output: [exited, (agent) => remove(folder(agent, "logs"))],
    run_folder: [exited, (agent) => remove(folder(agent, "runs", agent.run_id ?? ""))],
    status_file: [lost, (agent) => remove(status(agent))],
    garbled_status: [lost, (agent) => appendFileSync(status(agent), "exit 0")],
    everything: [lost, (agent) => remove(folder(agent))],
  };
  let agents: Agent[];
  beforeEach(async () => {
    agents = Object.values(await startAll(Object.keys(losses)));
  });
  const loseAll = () => {
    for (const agent of agents) losses[agent.agent_id]?.[1](agent);
  };

  /** Each ended as far as that can be known, and its next run lacks nothing. */
  async function expectWhole(): Promise<void> {
    for (const agent of agents) {
      const { agent_id, run_id } = agent;
      const after = await startedAgain(agent);
      const [how] = losses[agent_id] ?? [];
      const last_exit = { ...how, cause: "self", success: false, run_id };
      expect([agent_id, after]).toMatchObject([agent_id, { last_exit }]);
      expect(existsSync(status(after)), agent_id).toBe(true);
      expect(readdirSync(folder(after, "logs"))).toContain(`${after.run_id}.stdout.log`);
      await it.client.agents.remove(agent_id);
      expect(seeProcess(after.pid as number)).toBeUndefined();
    }
  }

  test("while the daemon runs: they run on, and their ends are noticed", async () => {
    loseAll();
    for (const agent of agents) {
      await expectAdopted(agent);
      expect(await it.client.agents.logs(agent.agent_id)).toMatchObject({ items: expect.any(Array) });
    }
    await Promise.all(agents.map(openGate));
    await expectWhole();
  });

  test("while there is none: they are adopted, and their ends are noticed", async () => {
    await crash(it);
    loseAll();
    await it.start();
    for (const agent of agents) await expectAdopted(agent);
    await Promise.all(agents.map(openGate));
    await expectWhole();
  });

  test("and they ended while there was none", async () => {
    await crash(it);
    loseAll();
    await Promise.all(agents.map(openGate));
    await it.start();
    await expectWhole();
  });
});
