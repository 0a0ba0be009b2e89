import { z } from "zod";
import {
  type Clock,
  duration,
  formatDuration,
  type Logger,
  type Probe,
  type ProbeRun,
} from "../../core/index.js";

/**
 * The options that all probes share: every `interval` a sign of life is expected, given by the agent
 * (`heartbeat`, `notify`) or asked for (`http`, `tcp`, `exec`); `misses` in a row are too many.
 */
export const interval = () => duration({ min: "100ms" });
export const misses = () => z.int().min(1).max(1_000).default(3);

/** Where signs are given rather than asked for. */
export const signOptions = { interval: interval().default(60_000), misses: misses() };
export interface SignOptions {
  interval: number;
  misses: number;
}

/**
 * Liveness by signs that the agent gives: answers what to call at each of them. `interval` times `misses`
 * without one is unhealthy; before the first one nothing is said. Time runs from now, so that a daemon that
 * was away holds nothing against a run that it adopts.
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

/** Asked for signs are looked for so often unless the template says otherwise. */
const READINESS_INTERVAL_MS = 1_000;
const LIVENESS_INTERVAL_MS = 10_000;

/**
 * One look at a run. Resolves with `undefined` when all is well, else with what is wrong, in words. Rejects
 * when it could not look: that counts neither way. `signal` aborts when the interval is over.
 */
export type Check<O> = (run: ProbeRun, options: O, signal: AbortSignal) => Promise<string | undefined>;

export interface PollingProbeDeps {
  clock: Clock;
  log: Logger;
}

/**
 * A probe that looks at a run every `interval`, for the first time at once. A look without an answer by the
 * end of its interval is a miss. Readiness: the first good look. Liveness: `misses` bad looks in a row are
 * unhealthy.
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

/** What follows from a look, by the role that the run is watched in. */
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
        report.starting({ reason: error instanceof Error ? error.message : String(error) });
      }
      if (complained) return;
      complained = true;
      log.warn({ agent_id: agent.agent_id, role, err: error }, "a probe could not look; it goes on trying");
    },
  };
}
