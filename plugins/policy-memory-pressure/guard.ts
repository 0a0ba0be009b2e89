import {
  type Agent,
  isLive,
  isOpenStarryError,
  type PluginContext,
  type ResourceSample,
} from "../../core/index.js";
import { readMemory } from "./memory-reading.js";
import type { Options } from "./options.js";
import { createPressure } from "./pressure.js";
import { chooseVictim, createActivity } from "./victim.js";

/** Who was stopped and takes longer than this to end is not waited for. */
const PATIENCE_MS = 30_000;

/** Watches the machine's memory, and stops agents when there is none left. */
export interface Guard {
  /** Why no agent may start now, in words. */
  readonly wait: string | undefined;
  /** Reads the figures, and acts. */
  look(): void;
  /** What the agents use. */
  see(samples: readonly ResourceSample[]): void;
}

export function createGuard(
  ctx: PluginContext,
  options: Options,
  priorityOf: (agentId: string) => number,
): Guard {
  const now = () => ctx.clock.monotonic();
  const activity = createActivity();
  const pressure = createPressure({
    waitSome: options.wait_some,
    waitAvailable: options.wait_available,
    stopFull: options.stop_full,
    stopAvailable: options.stop_available,
    psiCountsBelow: options.psi_counts_below,
    stopAfterMs: options.stop_after,
    calmMs: options.calm,
  });
  let problem: string | undefined;
  let victim: { runId: string | undefined; sinceMs: number } | undefined;

  function report(text: string | undefined) {
    if (text === problem) return;
    problem = text;
    if (text === undefined) ctx.daemon.recovered();
    else ctx.daemon.degraded(text);
  }

  /** The last one still ends: what it gives back is not seen yet. */
  function stillEnds(): boolean {
    if (!victim || now() - victim.sinceMs > PATIENCE_MS) return false;
    const { runId } = victim;
    return ctx.agents.list().some(({ run_id, state }) => run_id === runId && isLive(state));
  }

  function relieve(reason: string) {
    const candidates = ctx.agents.list().filter(isUp);
    const chosen = chooseVictim(candidates, { priorityOf, cpuOf: activity.cpuOf });
    if (!chosen) return;
    victim = { runId: chosen.run_id, sinceMs: now() };
    stop(chosen, reason).catch((err: unknown) => {
      if (isOpenStarryError(err) && ["agent_not_found", "agent_is_deleted"].includes(err.code)) return;
      ctx.log.error({ agent_id: chosen.agent_id, err }, "an agent could not be stopped for want of memory");
    });
  }

  /** It is wanted as before, and waits in the queue of those that start when there is memory again. */
  async function stop({ agent_id, run_id = "" }: Agent, reason: string): Promise<void> {
    ctx.log.warn({ agent_id, run_id, reason }, "an agent is stopped for want of memory");
    const intent = { actor: `plugin:${ctx.name}`, cause: "policy", run_id, uncounted: true } as const;
    await ctx.control.restart(agent_id, { ...intent, reason });
  }

  return {
    get wait() {
      return pressure.wait;
    },
    see: (samples) => activity.see(samples, now()),
    look() {
      const reading = readMemory({ psi: options.psi_file, meminfo: options.meminfo_file });
      const blind = !reading.psi && !reading.available;
      pressure.see(reading, now());
      report(
        blind
          ? `neither ${options.psi_file} nor ${options.meminfo_file} can be read: memory pressure is not watched`
          : pressure.wait,
      );
      if (stillEnds()) pressure.acted();
      else if (pressure.stop !== undefined && options.on_pressure === "stop") {
        relieve(pressure.stop);
        pressure.acted();
      }
    },
  };
}

function isUp({ state, desired }: Agent): boolean {
  return desired === "running" && (state === "starting" || state === "running");
}
