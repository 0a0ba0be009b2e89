import type { Agent } from "../../core/index.js";
import type { TestDaemon } from "./daemon.js";
import { seeProcess } from "./processes.js";
import { waitFor } from "./wait-for.js";

/** kill -9 of the daemon. Resolves when the lock is free. */
export async function crash(daemon: TestDaemon): Promise<void> {
  process.kill(daemon.pid() as number, "SIGKILL");
  await waitFor(() => daemon.pid() === undefined, { what: "the lock to be free" });
}

/** Waits until the agent is as the condition wants it, and answers it; on failure, tells why it is not. */
export function agentWhen(
  { client }: TestDaemon,
  agentId: string,
  condition: (agent: Agent) => boolean,
): Promise<Agent> {
  const look = async () => {
    const agent = await client.agents.get(agentId);
    return condition(agent) && agent;
  };
  const diagnose = () => client.agents.why(agentId);
  return waitFor(look, { what: `${agentId} to change`, timeoutMs: 15_000, diagnose }) as Promise<Agent>;
}

/** Waits until this run of the agent is over and nothing more follows from that, and answers the agent. */
export function afterEndOf(daemon: TestDaemon, { agent_id, run_id }: Agent): Promise<Agent> {
  const followed = ({ state, last_exit }: Agent) =>
    last_exit?.run_id === run_id && state !== "pending" && state !== "backoff";
  return agentWhen(daemon, agent_id, followed);
}

/** kill -9 of an agent's own process. Resolves when it is gone. */
export async function killAgent({ pid }: Pick<Agent, "pid">): Promise<void> {
  process.kill(pid as number, "SIGKILL");
  await waitFor(() => seeProcess(pid as number) === undefined, { what: `the end of ${pid}` });
}
