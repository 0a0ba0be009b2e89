import { z } from "zod";
import {
  type Clock,
  duration,
  errorText,
  formatDuration,
  type Logger,
  type Probe,
  type ProbeRun,
} from "../../core/index.js";

/**
 * The options that all probes share. A sign of life is expected every `interval`, sent by the agent (`heartbeat`,
 * `notify`) or requested (`http`, `tcp`, `exec`); the run is unhealthy after `misses` missing signs in a row.
 */
export const interval = () => duration({ min: "100ms" });
export const misses = () => z.int().min(1).max(1_000).default(3);

/** The options of probes that wait for signs of life. */
export const signOptions = { interval: interval().default(60_000), misses: misses() };
export interface SignOptions {
  interval: number;
  misses: number;
}

/**
 * Reports a run unhealthy when no sign of life came for `interval` times `misses`. Returns what to call at each sign.
 * Time counts from now, so that an adopted run is not blamed for the time without a daemon.
 */
export function expectSigns(
  clock: Clock,
  what: string,
  { interval, misses }: SignOptions,
  { report, signal }: Pick<ProbeRun, "report" | "signal">,
): () => void {
  const limitMs = interval * misses;
  const missed = () =>
    report.unhealthy(`no ${what} for ${formatDuration(limitMs)} (${misses} × ${formatDuration(interval)})`);
  let cancel = clock.after(limitMs, missed);
  signal.addEventListener("abort", () => cancel(), { once: true });
  return () => {
    cancel();
    cancel = clock.after(limitMs, missed);
    report.healthy();
  };
}

/** The default intervals of probes that check the run. */
const READINESS_INTERVAL_MS = 1_000;
const LIVENESS_INTERVAL_MS = 10_000;

/**
 * Checks a run once. Resolves with `undefined` when the run is healthy, else with the problem. Rejects when the check
 * itself failed, which counts neither way. `signal` aborts at the end of the interval.
 */
export type Check<O> = (run: ProbeRun, options: O, signal: AbortSignal) => Promise<string | undefined>;

export interface PollingProbeDeps {
  clock: Clock;
  log: Logger;
}

/**
 * Creates a probe that checks a run at once and then every `interval`. A check without an answer by the end of its
 * interval is a miss. The run is ready after the first good check, and unhealthy after `misses` bad ones in a row.
 */
export function pollingProbe<S extends z.ZodRawShape>(
  { clock, log }: PollingProbeDeps,
  { name, options: shape, check }: { name: string; options: S; check: Check<z.output<z.ZodObject<S>>> },
): Probe {
  const shared = { interval: interval().optional(), misses: misses() };

  function watch(run: ProbeRun) {
    const options = run.options as z.output<z.ZodObject<S>> & { interval?: number; misses: number };
    const usual = run.role === "readiness" ? READINESS_INTERVAL_MS : LIVENESS_INTERVAL_MS;
    const intervalMs = options.interval ?? usual;
    const { good, bad, unable } = createVerdicts(run, { intervalMs, misses: options.misses, log });
    everyInterval(clock, intervalMs, run.signal, (round) => {
      let answered = false;
      const answer = (verdict: () => void) => {
        if (!round.aborted) verdict();
        answered = true;
      };
      const late = () => {
        if (!answered && !run.signal.aborted) bad(`no answer within ${formatDuration(intervalMs)}`);
      };
      round.addEventListener("abort", late, { once: true });
      check(run, options, round).then(
        (problem) => answer(() => (problem === undefined ? good() : bad(problem))),
        (error) => answer(() => unable(error)),
      );
    });
  }

  return { name, roles: ["readiness", "liveness"], options: z.strictObject({ ...shape, ...shared }), watch };
}

/** Calls `look` at once and every `intervalMs`, until `signal` aborts. The signal of a round aborts at its end. */
function everyInterval(
  clock: Clock,
  intervalMs: number,
  signal: AbortSignal,
  look: (round: AbortSignal) => void,
): void {
  let round = new AbortController();
  let cancel = () => {};
  const next = () => {
    round.abort();
    if (signal.aborted) return;
    round = new AbortController();
    cancel = clock.after(intervalMs, next);
    look(round.signal);
  };
  const end = () => {
    cancel();
    round.abort();
  };
  signal.addEventListener("abort", end, { once: true });
  next();
}

/** Creates the reports of the results of checks, for the role of the probe. */
function createVerdicts(
  { agent, role, report }: ProbeRun,
  { intervalMs, misses, log }: { intervalMs: number; misses: number; log: Logger },
) {
  let missed = 0;
  let complained = false;
  return {
    good() {
      missed = 0;
      if (role === "readiness") report.ready();
      else report.healthy();
    },
    bad(reason: string) {
      missed += 1;
      if (role === "readiness") return report.starting({ reason });
      if (missed < misses) return;
      const often = missed === 1 ? "once" : `${missed} times in a row, every ${formatDuration(intervalMs)}`;
      report.unhealthy(`${reason} (${often})`);
    },
    unable(error: unknown) {
      if (role === "readiness") {
        report.starting({ reason: errorText(error) });
      }
      if (complained) return;
      complained = true;
      log.warn({ agent_id: agent.agent_id, role, err: error }, "a probe could not look; it goes on trying");
    },
  };
}
