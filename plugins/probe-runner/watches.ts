import type { Agent, ChosenProbe, ProbeReport, ProbeRole } from "../../core/index.js";

/** What one run is watched for. */
export interface WatchPlan {
  readonly agent: Agent;
  readonly runId: string;
  readonly probes: Partial<Record<ProbeRole, ChosenProbe>>;
}

export interface WatchesOptions {
  ready: (plan: WatchPlan) => void;
  starting: (plan: WatchPlan, note: { reason?: string; withinMs?: number }) => void;
  health: (plan: WatchPlan, health: "healthy" | "unhealthy", reason: string) => void;
  /** A probe threw instead of watching. */
  failed: (plan: WatchPlan, role: ProbeRole, error: unknown) => void;
}

/** The probes at work, by run. */
export interface Watches {
  /** Begins with readiness while the run is not ready, with liveness once it is. */
  begin(plan: WatchPlan): void;
  /** The run is ready: from now on it is watched for liveness. Runs that are not watched: nothing. */
  becameReady(runId: string): void;
  end(runId: string): void;
  endAll(): void;
}

/** Liveness waits for readiness: how long a start may take is the readiness timeout's business. */
export function createWatches(options: WatchesOptions): Watches {
  const runs = new Map<string, { plan: WatchPlan; role: ProbeRole; stop: AbortController }>();

  const watch = (plan: WatchPlan, role: ProbeRole) => {
    const stop = new AbortController();
    runs.get(plan.runId)?.stop.abort();
    runs.set(plan.runId, { plan, role, stop });
    const wanted = plan.probes[role];
    if (!wanted) return;
    const { agent, runId } = plan;
    const report = reportOf(plan, role, stop.signal, options);
    try {
      wanted.probe.watch({ agent, runId, role, options: wanted.options, report, signal: stop.signal });
    } catch (error) {
      options.failed(plan, role, error);
    }
  };

  return {
    begin(plan) {
      watch(plan, plan.agent.state === "starting" ? "readiness" : "liveness");
    },
    becameReady(runId) {
      const run = runs.get(runId);
      if (run?.role === "readiness") watch(run.plan, "liveness");
    },
    end(runId) {
      runs.get(runId)?.stop.abort();
      runs.delete(runId);
    },
    endAll() {
      for (const { stop } of runs.values()) stop.abort();
      runs.clear();
    },
  };
}

/** What a probe says after it was told to stop, or about what it was not asked for, is not passed on. */
function reportOf(
  plan: WatchPlan,
  role: ProbeRole,
  signal: AbortSignal,
  options: WatchesOptions,
): ProbeReport {
  const when = (wanted: ProbeRole, act: () => void) => {
    if (role === wanted && !signal.aborted) act();
  };
  return {
    ready: () => when("readiness", () => options.ready(plan)),
    starting: (note) => when("readiness", () => options.starting(plan, note)),
    healthy: () => when("liveness", () => options.health(plan, "healthy", "")),
    unhealthy: (reason) => when("liveness", () => options.health(plan, "unhealthy", reason)),
  };
}
