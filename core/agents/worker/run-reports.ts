import type { Agent, Health, Limit, LimitReport } from "../../contracts/agent.js";
import type { Intent } from "../../contracts/agent-control.js";
import type { ProgressStep } from "../../contracts/agent-reports.js";
import { OpenStarryError } from "../../contracts/errors.js";
import type { EventType, NewEvent } from "../../contracts/events.js";
import type { RunHandle } from "../../contracts/spawner.js";
import type { StoredAgent } from "../../contracts/stored-agent.js";
import type { Hooks } from "../../host/hooks.js";
import { isLive } from "../state.js";
import type { HookQueue } from "./hook-queue.js";

/** What is told of a live run, and what is done to it without ending it. About a run that is over: nothing. */
export interface RunReports {
  /** Rejects with `agent_not_running`. */
  signal(signal: string): Promise<void>;
  /** Rejects with `agent_not_running`, or `throttle_unavailable`. */
  throttle(percent: number | undefined, intent: Intent): Promise<void>;
  markReady(runId: string): Promise<void>;
  markStarting(runId: string, note: { reason?: string; withinMs?: number }): Promise<void>;
  markHealth(runId: string, health: Health, reason: string): Promise<void>;
  markLimit(runId: string, report: LimitReport & { actor: string }): Promise<void>;
  markProgress(runId: string, step: ProgressStep, reason: string): Promise<void>;
  /**
   * Live signs and figures: kept in memory, journaled with the next change. With an event they are journaled
   * now, and with them these others, in one.
   */
  observe(
    patch: Partial<Agent>,
    event?: NewEvent,
    others?: readonly { readonly stored: StoredAgent }[],
  ): Promise<void>;
}

/** The agent that the run is of. */
export interface ReportsDeps {
  stored: StoredAgent;
  /** The live process, if there is one. */
  handle(): RunHandle | undefined;
  end(runId: string, ending: NonNullable<StoredAgent["ending"]>): void;
  event(type: EventType, data: Record<string, unknown>): NewEvent;
  write(events: NewEvent[], put?: StoredAgent[]): Promise<void>;
  becomeReady(patch: Partial<Agent>): Promise<void>;
  extendStart(withinMs: number): void;
  now(): string;
  hooks: Hooks;
  hookQueue: HookQueue;
}

export interface OwnRunReports {
  readonly verbs: RunReports;
  /** What an end by itself is put down to: the run was interrupted, and has not got on since. */
  interrupted(): StoredAgent["ending"];
  /** Another run: nothing has been told of it. */
  begin(): void;
  queueReady(): void;
}

/** Where a failure to journal must not undo what was seen. */
async function quietly(recorded: Promise<void>): Promise<void> {
  await recorded.catch(() => {});
}

export function createRunReports(of: ReportsDeps): OwnRunReports {
  const { hooks, hookQueue, event } = of;
  let interrupted: StoredAgent["ending"];

  const isAbout = (runId: string, ...states: Agent["state"][]) =>
    of.stored.agent.run_id === runId && states.includes(of.stored.agent.state) && !of.stored.ending;

  function show(patch: Partial<Agent>) {
    of.stored = { ...of.stored, agent: { ...of.stored.agent, ...patch } };
  }

  function liveHandle(): RunHandle {
    const handle = of.handle();
    if (handle) return handle;
    const { agent_id } = of.stored.agent;
    throw new OpenStarryError("agent_not_running", { detail: `agent ${agent_id} has no live process` });
  }

  function queueReady() {
    const { agent } = of.stored;
    hookQueue.add(() => hooks.onReady.promise({ agent, run_id: agent.run_id ?? "" }));
  }

  const verbs: RunReports = {
    async signal(name) {
      await liveHandle().signal(name);
    },
    async throttle(percent, { actor, reason }) {
      const slowed = liveHandle();
      const { agent_id, spawner } = of.stored.agent;
      if (!slowed.throttle) {
        throw new OpenStarryError("throttle_unavailable", {
          detail: `the spawner ${spawner} cannot slow agent ${agent_id} down`,
        });
      }
      const by = await slowed.throttle(percent);
      if (slowed !== of.handle()) return;
      // What could not be given back is still told, with what it was.
      const kept = percent ?? of.stored.agent.throttle?.percent;
      const shown = by === undefined || kept === undefined ? undefined : { percent: kept, by, actor, reason };
      show({ throttle: shown });
      await of.write([event("agent.throttled", { percent, by, actor, reason })]);
    },
    async markReady(runId) {
      if (!isAbout(runId, "starting")) return;
      await of.becomeReady({ ready_at: of.now() });
      queueReady();
    },
    async markStarting(runId, { reason, withinMs }) {
      if (!isAbout(runId, "starting")) return;
      if (reason !== undefined) show({ reason });
      if (withinMs !== undefined) of.extendStart(withinMs);
    },
    async markHealth(runId, to, reason) {
      const { run_id, state, health: from } = of.stored.agent;
      if (run_id !== runId || !isLive(state) || from === to) return;
      show({ health: to });
      const { agent } = of.stored;
      hookQueue.add(() => hooks.onHealthChange.promise({ agent, run_id: runId, from, to }));
      await quietly(of.write([event("agent.health", { from, to, reason })]));
      if (to === "unhealthy") of.end(runId, { cause: "unhealthy", actor: "daemon", reason });
    },
    async markLimit(runId, report) {
      const { run_id, state } = of.stored.agent;
      if (run_id !== runId || !isLive(state)) return;
      const limits: Partial<Record<string, Limit>> = of.stored.agent.limits ?? {};
      const held_by = limits[report.limit]?.held_by;
      // It may go on for some time: it hears of it in the answers to its heartbeats.
      if (report.action === "stop" && !of.stored.ending) show({ reason: report.reason });
      await of.write([event("agent.limit", { ...report, held_by })]);
    },
    async markProgress(runId, step, reason) {
      if (!isAbout(runId, "running")) return;
      interrupted = step === "interrupt" ? { cause: "unhealthy", actor: "daemon", reason } : undefined;
      show({ reason: step === "resumed" ? undefined : reason });
      await quietly(of.write([event("agent.progress", { step, reason })]));
    },
    async observe(patch, observed, others = []) {
      show(patch);
      const put = others.map((other) => other.stored);
      if (observed) await of.write([observed], put);
    },
  };
  return {
    verbs,
    interrupted: () => interrupted,
    begin() {
      interrupted = undefined;
    },
    queueReady,
  };
}
