import { readFileSync } from "node:fs";
import { z } from "zod";
import type { Clock, Logger, Probe, ProbeRun } from "../../core/index.js";
import { expectSigns, type SignOptions, signOptions } from "../kit/probe-loop.js";
import type { Datagram } from "./datagrams.js";
import { type Message, parseMessage } from "./message.js";

/** What is known of one run, from its first message on. */
interface Run {
  readonly agentId: string;
  readonly uids: readonly number[];
  readonly listeners: Set<(message: Message) => void>;
  /** It has said `READY=1`. */
  ready: boolean;
  /** There was a time in which it may have said so and nobody was there. */
  readonly mayHaveSaid: boolean;
  complained: boolean;
}

export interface NotifyProbeDeps {
  clock: Clock;
  log: Logger;
  /** Hands the agent's own words on. */
  status: (agentId: string, runId: string, status: string) => void;
  /** The readiness timeout of an agent. */
  startTimeoutMs: (agentId: string) => number;
}

/** The probe, and what the sockets hand to it. */
export interface NotifyProbe {
  readonly probe: Probe;
  /** A socket is bound for this run; `again`: in the place of an earlier daemon's. */
  add(runId: string, run: { agentId: string; uid: number; again: boolean }): void;
  receive(runId: string, datagram: Datagram): void;
  remove(runId: string): void;
}

/** A run that is not heard by then has lost its word, rather than its wits. */
const SHARE_OF_TIMEOUT = 0.5;

/**
 * sd_notify(3). Readiness: `READY=1`, whenever it came. Liveness: `WATCHDOG=1` at least every `interval` times
 * `misses`. A run that was starting while its daemon was gone may have said `READY=1` to nobody, and will not say
 * it again: a watchdog's ping then counts for it, and so does half of the readiness timeout.
 */
export function createNotifyProbe({ clock, log, status, startTimeoutMs }: NotifyProbeDeps): NotifyProbe {
  const runs = new Map<string, Run>();

  function listen({ runId, signal }: ProbeRun, listener: (message: Message) => void) {
    const listeners = runs.get(runId)?.listeners;
    listeners?.add(listener);
    signal.addEventListener("abort", () => listeners?.delete(listener), { once: true });
  }

  function watchReadiness(run: ProbeRun) {
    const known = runs.get(run.runId);
    if (known?.ready) return run.report.ready();
    run.report.starting({ reason: "READY=1 has not come" });
    listen(run, ({ ready, watchdog, extendMs }) => {
      if (ready || (known?.mayHaveSaid && watchdog === "alive")) run.report.ready();
      else if (extendMs !== undefined) run.report.starting({ withinMs: extendMs });
    });
    if (!known?.mayHaveSaid) return;
    const patienceMs = startTimeoutMs(run.agent.agent_id) * SHARE_OF_TIMEOUT;
    const cancel = clock.after(patienceMs, () => {
      const { agent_id } = run.agent;
      log.info({ agent_id }, "it may have said READY=1 while no daemon was there; it is taken to be ready");
      run.report.ready();
    });
    run.signal.addEventListener("abort", cancel, { once: true });
  }

  function watchLiveness(run: ProbeRun) {
    const sign = expectSigns(clock, "WATCHDOG=1", run.options as SignOptions, run);
    listen(run, ({ watchdog, stopping }) => {
      // Who says that it is ending gets as long for it as between two pings.
      if (watchdog === "alive" || stopping) sign();
      if (watchdog === "trigger") run.report.unhealthy("it said so itself, with WATCHDOG=trigger");
    });
  }

  function refuse(run: Run, why: string) {
    if (!run.complained) log.warn({ agent_id: run.agentId }, `a message of sd_notify is not taken: ${why}`);
    run.complained = true;
  }

  return {
    probe: {
      name: "notify",
      roles: ["readiness", "liveness"],
      options: z.strictObject(signOptions),
      watch(run) {
        if (run.signal.aborted) return;
        if (run.role === "readiness") watchReadiness(run);
        else watchLiveness(run);
      },
    },
    add(runId, { agentId, uid, again }) {
      runs.set(runId, {
        agentId,
        uids: [uid, 0, process.geteuid?.() ?? 0],
        listeners: new Set(),
        ready: false,
        mayHaveSaid: again,
        complained: false,
      });
    },
    receive(runId, { text, pid, uid }) {
      const run = runs.get(runId);
      if (!run) return;
      if (text === undefined) return refuse(run, "it is longer than 4096 bytes");
      if (!run.uids.includes(uid)) return refuse(run, `its sender is of uid ${uid}`);
      if (isOfAnotherRun(pid, runId)) return refuse(run, `its sender, process ${pid}, is another agent's`);
      const message = parseMessage(text);
      if (message.mainPid !== undefined) {
        refuse(run, "MAINPID would put a process in the agent's place whose end nobody could know");
      }
      run.ready ||= message.ready;
      if (message.status !== undefined) status(run.agentId, runId, message.status);
      for (const listener of [...run.listeners]) listener(message);
    },
    remove: (runId) => void runs.delete(runId),
  };
}

/**
 * Whether a process was started as part of another run. One that is gone, or whose environment cannot be
 * read, is taken for what the path that it knew says it is.
 */
function isOfAnotherRun(pid: number, runId: string): boolean {
  if (pid <= 0) return false;
  try {
    const found = /(?:^|\0)OPENSTARRY_RUN_ID=([^\0]*)/.exec(
      readFileSync(`/proc/${pid}/environ`, "latin1"),
    )?.[1];
    return found !== undefined && found !== runId;
  } catch {
    return false;
  }
}
