import type { Exit } from "./agent.js";
import { defineSlot } from "./slot.js";

/** When to start again what has ended. Times in milliseconds. */
export interface RestartRules {
  policy: "never" | "on-failure" | "always";
  max_restarts: number;
  periodMs: number;
  backoff: { minMs: number; maxMs: number };
}

export interface RestartInput {
  exit: Exit;
  rules: RestartRules;
  /** What the last decision for this agent asked to be reminded of. */
  memory: unknown;
  /** Wall clock, milliseconds since the epoch. */
  nowMs: number;
  /** How long the run lived, by the monotonic clock where the daemon saw it start. */
  uptimeMs: number;
}

export type RestartDecision =
  | { action: "restart"; delayMs: number; reason: string; memory: unknown }
  /** Leave it ended: `exited`. */
  | { action: "exit"; reason: string; memory: unknown }
  /** Give up: `failed`. */
  | { action: "fail"; reason: string; memory: unknown };

/**
 * The one decider of automatic restarts. Pure: no timers, no state of its own; `memory` is a JSON
 * value that the kernel keeps with the agent.
 */
export interface RestartPolicy {
  decide(input: RestartInput): RestartDecision;
  /**
   * How much of what it allows an agent is used up, in words: for those who ask why an agent is as it is.
   * `undefined`: nothing. Absent: it does not tell.
   */
  used?(input: Pick<RestartInput, "rules" | "memory" | "nowMs">): string | undefined;
}

export const restartPolicy = defineSlot<RestartPolicy>("restartPolicy", "one");
