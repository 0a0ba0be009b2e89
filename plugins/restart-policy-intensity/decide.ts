import {
  type Cause,
  formatDuration,
  type RestartDecision,
  type RestartInput,
  type RestartRules,
} from "../../core/index.js";

export interface DecideOptions {
  /** `full`: anything from nothing to the backoff, so that agents that failed together start apart. */
  jitter: "full" | "none";
  /** Uniform in [0, 1). */
  random: () => number;
}

/** What is remembered of one agent between decisions: a JSON value. */
export interface RestartMemory {
  /** When it was restarted, wall clock, oldest first; only what lies within the period. */
  restarts_ms: number[];
  /** Failures in a row, none of which stayed up for the stable uptime. */
  streak: number;
}

/** A run that stayed up for so many periods ends the chain of failures before it. */
export const STABLE_PERIODS = 10;
/** So many times `max_restarts` failures in a row are given up on, however slowly they come. */
export const CHAIN_FACTOR = 3;

/** Ends that say nothing about the agent. */
const UNCOUNTED: readonly Cause[] = ["stop_request", "daemon_stop", "host_reboot", "restart"];

/** Failures that the agent did not end by itself. */
const ENDED_BY_OTHERS: readonly Cause[] = ["start_timeout", "unhealthy", "policy", "oom"];

const NOTHING: RestartMemory = { restarts_ms: [], streak: 0 };

/**
 * Decides what follows an end. Restart intensity is that of Erlang/OTP's supervisors: the restart
 * about to be made is counted with those of the last `period`, and more than `max_restarts` give up.
 * Since that never sees a loop slower than the period, failures in a row are counted as well. The
 * backoff is exponential with full jitter (Marc Brooker, "Exponential Backoff And Jitter", 2015).
 */
export function decide(input: RestartInput, options: DecideOptions): RestartDecision {
  const { exit, rules } = input;
  if (UNCOUNTED.includes(exit.cause)) return decideUncounted(input);
  const failed = !exit.success;
  if (rules.policy === "never" || (rules.policy === "on-failure" && !failed)) return leave(input);

  const memory = readMemory(input.memory);
  const stable = input.uptimeMs >= STABLE_PERIODS * rules.periodMs;
  const streak = failed ? (stable ? 1 : memory.streak + 1) : 0;
  const recent = recentRestarts(memory, input.nowMs, rules.periodMs);
  const refusal = tooMany(recent.length + 1, streak, rules);
  // An explicit start afterwards begins anew.
  if (refusal) return { action: "fail", reason: refusal, memory: NOTHING };

  const delayMs = backoff(streak, rules, options);
  return {
    action: "restart",
    delayMs,
    reason: `${count(recent.length + 1, "restart")} within ${formatDuration(rules.periodMs)}, at most ${rules.max_restarts} allowed; ${nextStart(delayMs)}`,
    memory: { restarts_ms: [...recent, input.nowMs], streak } satisfies RestartMemory,
  };
}

/** How many of the allowed restarts, and of the failures in a row, there were. */
export function used({ rules, memory, nowMs }: Pick<RestartInput, "rules" | "memory" | "nowMs">) {
  const { restarts_ms, streak } = readMemory(memory);
  const recent = recentRestarts({ restarts_ms, streak }, nowMs, rules.periodMs).length;
  if (recent === 0 && streak === 0) return undefined;
  const { max_restarts: max, periodMs } = rules;
  return `${recent} of ${count(max, "restart")} within ${formatDuration(periodMs)}, ${streak} of ${count(CHAIN_FACTOR * max, "failure")} in a row`;
}

/** What was asked for is not the agent's doing: the memory stays as it was. */
function decideUncounted({ exit, memory }: RestartInput): RestartDecision {
  if (exit.cause === "stop_request") return { action: "exit", reason: "it was asked to stop", memory };
  const why = {
    daemon_stop: "it ended with the daemon",
    host_reboot: "it ended with the machine",
    restart: "a restart was asked for",
  }[exit.cause as "daemon_stop" | "host_reboot" | "restart"];
  return { action: "restart", delayMs: 0, reason: `${why}; not counted`, memory };
}

/**
 * What the daemon itself could not bring up, or had to end, has not simply `exited`. The end itself is
 * told by whoever tells this reason.
 */
function leave({ exit, rules }: RestartInput): RestartDecision {
  const givenUp = exit.kind === "spawn_failed" || ENDED_BY_OTHERS.includes(exit.cause);
  const reason = `its restart policy is ${rules.policy}`;
  return { action: givenUp ? "fail" : "exit", reason, memory: NOTHING };
}

function tooMany(restarts: number, streak: number, rules: RestartRules): string | undefined {
  const { max_restarts: max, periodMs } = rules;
  if (restarts > max) {
    return max === 0
      ? "it ended, and its max_restarts is 0"
      : `crash loop: ${count(restarts, "restart")} would be within ${formatDuration(periodMs)}, at most ${max} allowed`;
  }
  if (streak > CHAIN_FACTOR * max) {
    const stable = formatDuration(STABLE_PERIODS * periodMs);
    return `crash loop: ${count(streak, "failure")} in a row, none of which stayed up for ${stable}; at most ${CHAIN_FACTOR * max} allowed`;
  }
  return undefined;
}

/** After the wall clock was set back, later times count from now on, so that they do pass. */
function recentRestarts(memory: RestartMemory, nowMs: number, periodMs: number): number[] {
  return memory.restarts_ms.map((at) => Math.min(at, nowMs)).filter((at) => at > nowMs - periodMs);
}

function backoff(streak: number, rules: RestartRules, options: DecideOptions): number {
  const { minMs, maxMs } = rules.backoff;
  // The exponent stays finite: a growing one times a minimum of 0 would be no number.
  const ceiling = Math.min(maxMs, minMs * 2 ** Math.min(Math.max(streak - 1, 0), 40));
  return Math.round(options.jitter === "full" ? options.random() * ceiling : ceiling);
}

function readMemory(memory: unknown): RestartMemory {
  const { restarts_ms: restarts, streak } = (memory ?? {}) as Partial<Record<keyof RestartMemory, unknown>>;
  const valid =
    Array.isArray(restarts) &&
    restarts.every((at) => Number.isFinite(at)) &&
    Number.isSafeInteger(streak) &&
    (streak as number) >= 0;
  return valid ? { restarts_ms: restarts, streak: streak as number } : NOTHING;
}

function nextStart(delayMs: number): string {
  return delayMs === 0 ? "next start at once" : `next start in ${formatDuration(delayMs)}`;
}

function count(amount: number, noun: string): string {
  return `${amount} ${noun}${amount === 1 ? "" : "s"}`;
}
