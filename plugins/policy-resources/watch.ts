import type { Agent, Clock, Limit, LimitReport, ResourceSample } from "../../core/index.js";
import { createRunJudge, type JudgeOptions, type RunJudge } from "./run-judge.js";

export interface WatchDeps extends JudgeOptions {
  clock: Clock;
  /** Something is over its limit, and this is to be done. */
  exceeded: (run: WatchedRun, report: LimitReport) => void;
  /** What tells the last line that it printed from an earlier one; `undefined` when it printed nothing. */
  lastLine: (agent: Agent) => Promise<string | undefined>;
  /** Whether an agent that it started lives. */
  hasLiveChild: (agentId: string) => boolean;
}

export interface WatchedRun {
  readonly agent: Agent;
  readonly runId: string;
}

/** Watches the runs that have limits. */
export interface Watch {
  begin(agent: Agent): void;
  see(samples: readonly ResourceSample[]): void;
  /** It sent a heartbeat. */
  alive(runId: string): void;
  /** The operating system refused it something; what is to be done besides is the limit's to say. */
  refused(runId: string, report: LimitReport): void;
  end(runId: string): void;
  endAll(): void;
}

interface Run extends WatchedRun {
  readonly judge: RunJudge;
  readonly cancelTime: () => void;
  /** The output is looked at again when it has been idle for this part of its limit more. */
  lookAgainMs: number;
  lastLine?: string | undefined;
}

/** Whoever does nothing is asked for its output so often on the way to the limit. */
const LOOKS_AT_OUTPUT = 10;

export function createWatch(deps: WatchDeps): Watch {
  const { clock } = deps;
  const runs = new Map<string, Run>();
  const now = () => clock.monotonic();

  function tell(run: Run, report: LimitReport | undefined) {
    // It may have ended while its output was being read.
    if (report && runs.get(run.runId) === run) deps.exceeded(run, report);
  }

  /** At its end the time is up, whether or not anybody measures. */
  function startTimer(agent: Agent, judge: RunJudge, runId: string): () => void {
    const limitMs = (agent.limits?.run_time_max?.value ?? Number.POSITIVE_INFINITY) * 1_000;
    if (!Number.isFinite(limitMs)) return () => {};
    const startedMs = agent.started_at === undefined ? clock.now() : Date.parse(agent.started_at);
    const ranMs = Math.max(0, clock.now() - startedMs);
    return clock.after(Math.max(0, limitMs - ranMs), () => {
      const run = runs.get(runId);
      if (run) tell(run, judge.timeIsUp("run_time_max", Math.max(limitMs, ranMs)));
    });
  }

  /** Output and children are looked at only for who seems to do nothing. */
  async function lookForIdle(run: Run): Promise<void> {
    const { judge, agent } = run;
    const limitMs = (agent.limits?.idle_max?.value ?? 0) * 1_000;
    const idleMs = judge.idleMs(now());
    if (limitMs === 0 || idleMs < run.lookAgainMs) {
      run.lookAgainMs = Math.min(run.lookAgainMs, idleMs + limitMs / LOOKS_AT_OUTPUT);
      return;
    }
    run.lookAgainMs = idleMs + limitMs / LOOKS_AT_OUTPUT;
    const line = await deps.lastLine(agent);
    const printed = line !== run.lastLine;
    run.lastLine = line;
    if (printed || deps.hasLiveChild(agent.agent_id)) judge.active(now());
    else tell(run, judge.timeIsUp("idle_max", judge.idleMs(now())));
  }

  return {
    begin(agent) {
      const { run_id: runId, limits } = agent;
      if (runId === undefined || limits === undefined) return;
      runs.get(runId)?.cancelTime();
      const judge = createRunJudge(limits, deps, now());
      const cancelTime = startTimer(agent, judge, runId);
      runs.set(runId, { agent, runId, judge, cancelTime, lookAgainMs: 0 });
    },
    see(samples) {
      for (const sample of samples) {
        const run = runs.get(sample.run_id);
        if (!run) continue;
        for (const report of run.judge.see(sample, now())) tell(run, report);
        // Who cannot be read is taken to be at work.
        lookForIdle(run).catch(() => run.judge.active(now()));
      }
    },
    alive: (runId) => runs.get(runId)?.judge.active(now()),
    refused(runId, { limit, value, reason }) {
      const run = runs.get(runId);
      const limits: Partial<Record<string, Limit>> = run?.agent.limits ?? {};
      const action = limits[limit]?.on_exceed;
      // That it was refused was told already.
      if (run && action !== undefined && action !== "warn") tell(run, { limit, value, action, reason });
    },
    end(runId) {
      runs.get(runId)?.cancelTime();
      runs.delete(runId);
    },
    endAll() {
      for (const { cancelTime } of runs.values()) cancelTime();
      runs.clear();
    },
  };
}
