import type { Agent, Probe, ProbeRole, ProbeRun } from "../../core/index.js";
import { validateSync } from "../../core/index.js";

/** What a probe has said of a run, in order. */
export interface WatchedRun {
  readonly said: string[];
  readonly run: ProbeRun;
  stop(): void;
}

/** Lets a probe watch a run that exists in the test alone. */
export function watchRun(
  probe: Probe,
  role: ProbeRole,
  options: Record<string, unknown> = {},
  runId = "run-of-a",
): WatchedRun {
  const said: string[] = [];
  const stopped = new AbortController();
  const run: ProbeRun = {
    agent: { agent_id: "a", run_id: runId, spawner: "process" } as Agent,
    runId,
    role,
    options: validateSync(probe.options, options, { code: "internal", what: "the test's options" }),
    report: {
      ready: () => void said.push("ready"),
      starting: ({ reason, withinMs }) => void said.push(`starting: ${reason ?? `within ${withinMs}`}`),
      healthy: () => void said.push("healthy"),
      unhealthy: (reason) => void said.push(`unhealthy: ${reason}`),
    },
    signal: stopped.signal,
  };
  probe.watch(run);
  return { said, run, stop: () => stopped.abort() };
}
