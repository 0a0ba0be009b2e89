import { type Agent, type Clock, type EventOf, formatDuration, type ProgressStep } from "../../core/index.js";
import type { ProgressRules } from "./sections.js";

/** A run that has to get on. */
export interface ProgressPlan {
  readonly agent: Agent;
  readonly runId: string;
  readonly rules: ProgressRules;
}

/** What is done about a run that does not get on, in order. */
export const STEPS = ["nudge", "interrupt", "restart"] as const satisfies readonly ProgressStep[];

/** The runs that have to get on, each with its timer. */
export interface ProgressWatch {
  /** From now on. A run that is watched already: nothing. */
  begin(plan: ProgressPlan): void;
  /** To be called with every event of the daemon. */
  hear(event: EventOf<"agent.heartbeat">): void;
  end(runId: string): void;
  endAll(): void;
}

interface Watched {
  readonly plan: ProgressPlan;
  /** What its last heartbeat said: one that says the same again is no progress. */
  said: { status: unknown; progress: unknown };
  sinceMs: number;
  stepsTaken: number;
  cancel: () => void;
}

/**
 * That a process lives and that it gets on are two things. Progress is a heartbeat whose `status` or
 * `progress` is new; what an agent has used is none: a loop uses tokens too. After `deadlineMs` without any,
 * the steps are taken one after the other, each given `graceMs` to help, until there is progress again.
 * Time runs from when the watch began, so that a daemon that was away holds nothing against a run.
 */
export function createProgressWatch(
  clock: Clock,
  act: (plan: ProgressPlan, step: ProgressStep, reason: string) => void,
): ProgressWatch {
  const runs = new Map<string, Watched>();

  function expect(run: Watched, withinMs: number) {
    run.cancel();
    run.cancel = clock.after(withinMs, () => {
      const step = STEPS[run.stepsTaken];
      if (!step) return;
      run.stepsTaken += 1;
      expect(run, run.plan.rules.graceMs);
      act(run.plan, step, `no progress for ${formatDuration(clock.monotonic() - run.sinceMs)}`);
    });
  }

  function end(runId: string) {
    runs.get(runId)?.cancel();
    runs.delete(runId);
  }

  return {
    begin(plan) {
      if (runs.has(plan.runId)) return;
      const { status, progress } = plan.agent;
      const said = { status, progress };
      const run = { plan, said, sinceMs: clock.monotonic(), stepsTaken: 0, cancel: () => {} };
      runs.set(plan.runId, run);
      expect(run, plan.rules.deadlineMs);
    },
    hear({ run_id: runId = "", data }) {
      const run = runs.get(runId);
      if (!run) return;
      const { status = run.said.status, progress = run.said.progress } = data;
      if (status === run.said.status && progress === run.said.progress) return;
      run.said = { status, progress };
      const stood = clock.monotonic() - run.sinceMs;
      const helped = run.stepsTaken > 0;
      Object.assign(run, { sinceMs: clock.monotonic(), stepsTaken: 0 });
      expect(run, run.plan.rules.deadlineMs);
      if (helped) act(run.plan, "resumed", `it gets on again, after ${formatDuration(stood)}`);
    },
    end,
    endAll() {
      for (const runId of [...runs.keys()]) end(runId);
    },
  };
}
