import { z } from "zod";
import { type Clock, type DaemonEvent, duration, formatDuration, type Probe } from "../../core/index.js";

const optionsSchema = z.strictObject({
  interval: duration().default(60_000),
  misses: z.int().min(1).max(1_000).default(3),
});
type Options = z.output<typeof optionsSchema>;

/** The probe, and the ear through which it hears of heartbeats. */
export interface HeartbeatProbe {
  readonly probe: Probe;
  /** To be called with every event of the daemon. */
  hear(event: DaemonEvent): void;
}

/**
 * Readiness: the first heartbeat. Liveness: `interval` times `misses` without one is unhealthy, and the
 * next one is healthy again; before the first one nothing is said. Time runs by the monotonic clock from
 * when the watch began, so that a daemon that was away holds nothing against a run that it adopts.
 */
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
    options: optionsSchema,
    watch({ runId, role, options, report, signal }) {
      if (signal.aborted) return;
      if (role === "readiness") {
        onHeartbeat(runId, signal, report.ready);
        return;
      }
      const { interval, misses } = options as Options;
      const limitMs = interval * misses;
      const missed = () =>
        report.unhealthy(
          `no heartbeat for ${formatDuration(limitMs)} (${misses} × ${formatDuration(interval)})`,
        );
      let cancel = clock.after(limitMs, missed);
      onHeartbeat(runId, signal, () => {
        cancel();
        cancel = clock.after(limitMs, missed);
        report.healthy();
      });
      signal.addEventListener("abort", () => cancel(), { once: true });
    },
  };

  return {
    probe,
    hear({ type, run_id: runId }) {
      if (type !== "agent.heartbeat" || runId === undefined) return;
      // A listener may end its own watch.
      for (const listener of [...(watchers.get(runId) ?? [])]) listener();
    },
  };
}
