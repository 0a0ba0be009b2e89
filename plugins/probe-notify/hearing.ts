import { isOpenStarryError, type PluginContext, type Probe } from "../../core/index.js";
import { createStatusThrottle } from "../kit/throttle-status.js";
import { findUser } from "../kit/users.js";
import type { Datagrams } from "./datagrams.js";
import { createNotifyProbe } from "./notify-probe.js";
import { createNotifySockets } from "./sockets.js";

/** The agents that can be heard: each has the socket of its current run. */
export interface Hearing {
  readonly probe: Probe;
  /**
   * Answers the path of the run's socket; what the agent's run before it had is removed. `again`: an earlier
   * daemon has made it. Throws where it cannot be made.
   */
  open(run: { agentId: string; runId: string; user: string | undefined; again: boolean }): string;
  /** Removes the agent's socket; that of another run than `runId` stays. */
  close(agentId: string, runId?: string): void;
  /** Removes the sockets of runs that do not live. */
  sweep(live: ReadonlySet<string>): void;
  /** Lets go of all sockets; the agents keep their paths. */
  release(): void;
}

const STATUS_EVERY_MS = 1_000;

export function createHearing(ctx: PluginContext, native: Datagrams, folder: string): Hearing {
  const { clock, log } = ctx;
  const sockets = createNotifySockets({ clock, log, native, folder });
  const pass = (agentId: string, runId: string, said: { status: string }) =>
    passOn(ctx, agentId, runId, said.status);
  const words = createStatusThrottle(clock, STATUS_EVERY_MS, pass);
  const notify = createNotifyProbe({
    clock,
    log,
    status: (agentId, runId, status) => {
      if (words.isTime(agentId, runId, { status })) pass(agentId, runId, { status });
    },
    startTimeoutMs: (agentId) => ctx.agents.template(agentId)?.template.readiness?.timeoutMs ?? 0,
  });
  const current = new Map<string, string>();

  function close(agentId: string, only?: string) {
    const runId = current.get(agentId);
    if (runId === undefined || (only !== undefined && only !== runId)) return;
    current.delete(agentId);
    sockets.close(runId);
    notify.remove(runId);
    words.end(runId);
  }

  return {
    probe: notify.probe,
    open({ agentId, runId, user, again }) {
      close(agentId);
      const uid = user === undefined ? (process.geteuid?.() ?? 0) : findUser(user).uid;
      sockets.open(runId, uid, (datagram) => notify.receive(runId, datagram));
      notify.add(runId, { agentId, uid, again });
      current.set(agentId, runId);
      return sockets.pathOf(runId);
    },
    close,
    sweep: sockets.sweep,
    release() {
      current.clear();
      sockets.release();
    },
  };
}

function passOn(ctx: PluginContext, agentId: string, runId: string, status: string): void {
  ctx.reports.heartbeat(agentId, runId, { status }).catch((error: unknown) => {
    // The run is over by now.
    if (isOpenStarryError(error) && ["agent_not_found", "run_is_over"].includes(error.code)) return;
    ctx.log.warn({ agent_id: agentId, err: error }, "an agent's status could not be passed on");
  });
}
