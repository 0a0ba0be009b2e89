import { z } from "zod";
import type { Clock, EventOf, Probe } from "../../core/index.js";
import { expectSigns, type SignOptions, signOptions } from "../kit/probe-loop.js";

/** The probe, and the ear through which it hears of heartbeats. */
export interface HeartbeatProbe {
  readonly probe: Probe;
  /** To be called with every event of the daemon. */
  hear(event: EventOf<"agent.heartbeat">): void;
}

/** Readiness: the first heartbeat. Liveness: `interval` times `misses` without one is unhealthy. */
export function createHeartbeatProbe(clock: Clock): HeartbeatProbe {
  const watchers = new Map<string, Set<() => void>>();

  const onHeartbeat = (runId: string, signal: AbortSignal, listener: () => void) => {
    const listeners = watchers.get(runId) ?? new Set();
    watchers.set(runId, listeners.add(listener));
    signal.addEventListener(
      "abort",
      () => {
        listeners.delete(listener);
        if (listeners.size === 0) watchers.delete(runId);
      },
      { once: true },
    );
  };

  const probe: Probe = {
    name: "heartbeat",
    roles: ["readiness", "liveness"],
    options: z.strictObject(signOptions),
    watch(run) {
      const { runId, role, options, report, signal } = run;
      if (signal.aborted) return;
      const heard =
        role === "readiness" ? report.ready : expectSigns(clock, "heartbeat", options as SignOptions, run);
      onHeartbeat(runId, signal, heard);
    },
  };

  return {
    probe,
    hear({ run_id: runId }) {
      if (runId === undefined) return;
      // A listener may end its own watch.
      for (const listener of [...(watchers.get(runId) ?? [])]) listener();
    },
  };
}
