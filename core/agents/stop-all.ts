import type { AgentsContext } from "./context.js";
import { isLive } from "./state.js";
import { stopWaves } from "./stop-waves.js";
import type { AgentWorker } from "./worker/worker.js";

export interface StopAllOptions {
  reason: string;
  /** For all agents together; what lives longer is killed. */
  budgetMs: number;
  /** Aborted: what still lives is killed. */
  signal?: AbortSignal;
}

/** How long a killed agent may take to be gone; then the daemon's stop goes on without it. */
const KILL_PATIENCE_MS = 10_000;

/** Ends all agents, dependents first. Resolves when they are over, or given up on. */
export async function stopAll(context: AgentsContext, options: StopAllOptions): Promise<void> {
  const { table, awaited, clock } = context;
  table.close();
  awaited.dispose();
  const ending = { cause: "daemon_stop", actor: "daemon", reason: options.reason } as const;
  const all = [...table.workers.values()];
  for (const worker of all) if (!isLive(worker.stored.agent.state)) worker.noMoreStarts();
  let graceMs: number | undefined;
  const killAll = () => {
    graceMs = 0;
    for (const worker of all) if (worker.stored.ending) worker.noMoreStarts(ending, 0);
  };
  const end = clock.monotonic() + options.budgetMs;
  const cancelBudget = clock.after(options.budgetMs, killAll);
  options.signal?.addEventListener("abort", killAll, { once: true });
  if (options.signal?.aborted) killAll();
  const live = all.filter(({ stored: { agent } }) => isLive(agent.state) || agent.state === "pending");
  for (const wave of stopWaves(live.map(({ stored }) => stored))) {
    const inWave = wave.flatMap((id) => table.workers.get(id) ?? []);
    for (const worker of inWave) worker.noMoreStarts(ending, graceMs);
    const leftMs = Math.max(0, end - clock.monotonic());
    await Promise.all(inWave.map((worker) => untilOver(context, worker, leftMs + KILL_PATIENCE_MS)));
  }
  cancelBudget();
}

/** Logs the agent that does not end: its processes hang in the operating system. */
async function untilOver(
  { waiters, log }: AgentsContext,
  worker: AgentWorker,
  timeoutMs: number,
): Promise<void> {
  await waiters.wait(worker, "over", { timeoutMs }).catch((error: unknown) => {
    log.error({ agent_id: worker.stored.agent.agent_id, err: error }, "an agent could not be ended");
  });
}

/** Lets go of all agents without touching them. */
export function releaseAll({ table, awaited }: AgentsContext): void {
  table.close();
  awaited.dispose();
  for (const worker of table.workers.values()) {
    worker.noMoreStarts();
    worker.dispose();
  }
}
