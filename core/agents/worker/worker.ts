import type { Agent, AgentLimits, Exit, RunRecord } from "../../contracts/agent.js";
import type { Clock } from "../../contracts/clock.js";
import { isSpawnDeferred, isSpawnVetoed, toOpenStarryError } from "../../contracts/errors.js";
import type { EventType, NewEvent } from "../../contracts/events.js";
import type { JournalBatch } from "../../contracts/journal.js";
import type { Logger } from "../../contracts/plugin.js";
import type { RestartPolicy } from "../../contracts/restart-policy.js";
import type {
  RunHandle,
  RunIdentity,
  RunOutcome,
  Spawner,
  SpawnSpec,
  Survivor,
} from "../../contracts/spawner.js";
import type { StoredAgent } from "../../contracts/stored-agent.js";
import type { Hooks } from "../../host/hooks.js";
import { rfc3339 } from "../../lib/clock.js";
import { timeOfUuidv7, uuidv7 } from "../../lib/ids.js";
import { heldBy } from "../../template/resources.js";
import { type AgentEvent, isEnded, isLive, transition } from "../state.js";
import { createHookQueue } from "./hook-queue.js";
import { createFactLog } from "./journal-writer.js";
import { describeExit, whatFollows } from "./run-end.js";
import { createRunReports, type RunReports } from "./run-reports.js";
import { createAgentTimers } from "./timers.js";

/** What a worker needs of the supervisor. */
export interface WorkerDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly hooks: Hooks;
  /** Journals, then tells the listeners. Rejects with `journal_unavailable`. */
  write(batch: JournalBatch): Promise<void>;
  /** The spec of the next run, `beforeSpawn` included. */
  prepare(stored: StoredAgent, runId: string): Promise<SpawnSpec>;
  /** What its next run may use. */
  limits(stored: StoredAgent): AgentLimits;
  spawner(name: string): Spawner;
  policy(): RestartPolicy;
  /** Tells what its template requires that it is wanted now. */
  want(stored: StoredAgent): void;
  /** What has to be waited for before it may start, in words. */
  blocker(stored: StoredAgent): string | undefined;
  /** Called after every change of state, and when a wait begins or ends. */
  changed(worker: AgentWorker): void;
  /** Called when there is nothing more to do for now. */
  idle(worker: AgentWorker): void;
  /** Called once, when the record is gone. */
  gone(worker: AgentWorker): void;
}

/** Runs one agent. Everything about it happens here, one step after another. */
export interface AgentWorker extends RunReports {
  readonly stored: StoredAgent;
  /** Waits in `pending` for something, and says for what. */
  readonly waiting: boolean;
  /** A process is being made, and is not let go yet. */
  readonly launching: boolean;
  /** A step is being taken, or is about to be. */
  readonly busy: boolean;
  /** What even the last means did not end. */
  readonly survivors: readonly Survivor[];
  /** Changes what is wanted, journals it, and sees to it. Rejects with `journal_unavailable`, nothing changed. */
  intend(
    patch: Partial<StoredAgent>,
    change?: { agent?: Partial<Agent>; event?: AgentEvent; graceMs?: number },
  ): Promise<void>;
  /** Looks again at what there is to do. */
  poke(): void;
  /** Ends the live run for a reason of the daemon's own; what is wanted stays. */
  end(runId: string, ending: NonNullable<StoredAgent["ending"]>, graceMs?: number): void;
  /** No start any more; a live run is ended when `ending` is given, within `graceMs` where that is shorter. */
  halt(ending?: NonNullable<StoredAgent["ending"]>, graceMs?: number): void;
  /** A run of an earlier daemon that lives. */
  adopt(handle: RunHandle): void;
  /** A run of an earlier daemon that is over. */
  settleLater(outcome: RunOutcome): void;
  /** Begins, after a boot: everything about it is known by now. */
  resume(): void;
  /** Forgets its timers. */
  dispose(): void;
}

/** The start was overtaken by another wish; nothing was left behind. */
const OVERTAKEN = Symbol("overtaken");

/** Wait before trying again what the journal could not take. */
const JOURNAL_RETRY_MS = 2_000;

/**
 * `written` resolves when the record is durable: the process may be made meanwhile, and waits at its
 * gate until it is.
 */
export function createAgentWorker(
  initial: StoredAgent,
  deps: WorkerDeps,
  written: Promise<void> = Promise.resolve(),
): AgentWorker {
  const { clock, hooks, log } = deps;
  let stored = initial;
  let handle: RunHandle | undefined;
  let outcome: RunOutcome | undefined;
  let survivors: Survivor[] = [];
  let stopping: { handle: RunHandle; graceMs: number } | undefined;
  let busy = false;
  let pokedAgain = false;
  let resumed = false;
  let halted = false;
  let waiting = false;
  let launching = false;
  /** The newest wish; a process is let go only after it is durable. */
  let wish = written;
  let graceMs: number | undefined;
  let startedAtMonotonicMs: number | undefined;
  /** A start that was put off; until when, by the monotonic clock. */
  let deferred: { reason: string; dueMs: number } | undefined;

  const id = stored.agent.agent_id;
  const hookQueue = createHookQueue(id, log);
  const facts = createFactLog({ current: () => stored, append: deps.write, log });
  const timers = createAgentTimers(clock, {
    due() {
      // Whoever stopped it meanwhile has said why.
      if (stored.agent.desired === "running") void quietly(move("due", {})).then(poke);
    },
    notReady(runId, late) {
      const { reason: why } = stored.agent;
      const reason = why === undefined ? late : `${late}: ${why}`;
      end(runId, { cause: "start_timeout", actor: "daemon", reason });
    },
    forget() {
      stored = { ...stored, deleting: true };
      poke();
    },
  });
  const now = () => rfc3339(clock.now());
  const reports = createRunReports({
    get stored() {
      return stored;
    },
    set stored(next) {
      stored = next;
    },
    handle: () => handle,
    end,
    event,
    hookQueue,
    hooks,
    now,
    becomeReady: (patch) => quietly(move("ready", patch)),
    extendStart: timers.extendStart,
    write: (events, put) => facts.write({ events, ...(put ? { put } : {}) }),
  });

  function event(type: EventType, data: Record<string, unknown>): NewEvent {
    const { run_id } = stored.agent;
    return { type, at: now(), agent_id: id, ...(run_id === undefined ? {} : { run_id }), data };
  }

  /** Changes the state in memory at once; what it answers resolves when the change is durable. */
  async function move(
    what: AgentEvent,
    patch: Partial<Agent>,
    more: Pick<JournalBatch, "runs" | "events"> = {},
  ): Promise<void> {
    const from = stored.agent.state;
    const to = transition(from, what);
    if (to === undefined) return;
    stored = {
      ...stored,
      agent: { ...stored.agent, reason: undefined, next_start_at: undefined, ...patch, state: to },
    };
    if (to !== "pending") waiting = false;
    const { reason } = stored.agent;
    const changed = event("agent.state", { from, to, ...(reason === undefined ? {} : { reason }) });
    timers.follow(stored);
    deps.changed(worker);
    await facts.write({ ...more, events: [...(more.events ?? []), changed] });
  }

  /** Where a failure to journal must not stop what is being done. */
  async function quietly(recorded: Promise<void>): Promise<void> {
    await recorded.catch(() => {});
  }

  function poke() {
    pokedAgain = true;
    // At a boot nothing is done about it before all plugins are started, whatever happens meanwhile.
    if (busy || !resumed) return;
    busy = true;
    void loop();
  }

  async function loop() {
    while (pokedAgain) {
      pokedAgain = false;
      try {
        if (await step()) pokedAgain = true;
      } catch (error) {
        log.error({ agent_id: id, err: error }, "a step failed; it is tried again");
        timers.retry(JOURNAL_RETRY_MS, poke);
      }
    }
    busy = false;
    deps.idle(worker);
  }

  /** The next thing to do; true when there may be more. */
  async function step(): Promise<boolean> {
    if (outcome) return settle(outcome);
    if (facts.isBehind) await quietly(facts.write({}));
    if (stored.unreported) return report(stored.unreported);
    const { state, desired } = stored.agent;
    if (isLive(state)) {
      if (handle && (desired === "stopped" || stored.ending)) terminate(handle);
      return false;
    }
    if (stored.deleting) return forget();
    if (desired === "stopped") {
      if (!isEnded(state)) await quietly(move("rest", { reason: stored.agent.reason }));
      return false;
    }
    return state === "pending" && !halted ? launch() : false;
  }

  function setWaiting(reason: string, next_start_at?: string) {
    const changed = !waiting || stored.agent.reason !== reason;
    waiting = true;
    stored = { ...stored, agent: { ...stored.agent, reason, next_start_at } };
    if (!changed) return;
    // A new reason is nothing that others could wait for.
    void quietly(facts.write({ events: [event("agent.state", { from: "pending", to: "pending", reason })] }));
  }

  async function launch(): Promise<boolean> {
    // Once for each wait: what it needs may fail, and is not to be started again for each look.
    if (!waiting && !stored.held) deps.want(stored);
    const blocker = stored.held ? `held by ${stored.held.by}: ${stored.held.reason}` : deps.blocker(stored);
    if (blocker !== undefined) {
      setWaiting(blocker);
      return false;
    }
    if (deferred && clock.monotonic() < deferred.dueMs) {
      setWaiting(deferred.reason, rfc3339(clock.now() + deferred.dueMs - clock.monotonic()));
      return false;
    }
    // Ids sort by age even where the clock was set back: output is kept and shown in their order.
    const runId = uuidv7(Math.max(clock.now(), timeOfUuidv7(stored.agent.run_id) + 1));
    const { template } = stored;
    launching = true;
    try {
      stored = { ...stored, agent: { ...stored.agent, spawner: template.template.spawner } };
      const spec = await deps.prepare(stored, runId);
      const spawning = deps
        .spawner(stored.agent.spawner)
        .spawn(spec, (run) => letGo(runId, run, () => stored.template === template));
      take(await spawning, false);
      return true;
    } catch (error) {
      if (error === OVERTAKEN) return true;
      return await startFailed(error, runId);
    } finally {
      launching = false;
    }
  }

  /** The process is held at its gate. The point of no return: journaled before it may go on. */
  async function letGo(runId: string, run: RunIdentity, isAsPrepared: () => boolean): Promise<void> {
    let durable = true;
    for (let newest: Promise<void> | undefined; newest !== wish; ) {
      newest = wish;
      durable = await newest.then(
        () => true,
        () => false,
      );
    }
    // Wishes that came while the process was being made: it has not run yet, and will not.
    const { state, desired } = stored.agent;
    const isWanted = state === "pending" && desired !== "stopped" && !stored.deleting && !halted;
    if (!durable || !isWanted || !isAsPrepared()) throw OVERTAKEN;
    const ready = stored.template.template.readiness === undefined;
    startedAtMonotonicMs = clock.monotonic();
    stored = { ...stored, target: run.target, ending: undefined };
    const at = now();
    await move(ready ? "ready" : "launched", {
      run_id: runId,
      pid: run.pid,
      containment: run.containment,
      limits: heldBy(deps.limits(stored), run.held),
      throttle: undefined,
      health: "unknown",
      started_at: at,
      ready_at: ready ? at : undefined,
      usage: undefined,
      status: undefined,
      progress: undefined,
    });
  }

  /** A live process is ours now. */
  function take(taken: RunHandle, adopted: boolean) {
    handle = taken;
    survivors = [];
    graceMs = undefined;
    const { agent } = stored;
    const run_id = agent.run_id ?? "";
    hookQueue.add(() => hooks.afterSpawn.promise({ agent, run_id, adopted }));
    reports.begin();
    if (agent.state === "running" && !adopted) reports.queueReady();
    taken.onLimit?.(
      (report) => void quietly(reports.verbs.markLimit(run_id, { ...report, actor: "daemon" })),
    );
    const isOver = (ended: RunOutcome) => {
      outcome = ended;
      poke();
    };
    taken.exit.then(isOver, (error: unknown) => {
      log.error({ agent_id: id, err: error }, "a spawner could not tell how a run ended");
      isOver({ status: { kind: "lost" } });
    });
  }

  async function startFailed(error: unknown, runId: string): Promise<boolean> {
    if (isSpawnDeferred(error)) {
      const { retryAfterMs } = error.data;
      deferred = { reason: error.message, dueMs: clock.monotonic() + retryAfterMs };
      setWaiting(error.message, rfc3339(clock.now() + retryAfterMs));
      timers.retry(retryAfterMs, poke);
      return false;
    }
    const problem = toOpenStarryError(error);
    if (problem.code === "internal") log.error({ agent_id: id, err: error }, "a start failed");
    if (problem.code === "journal_unavailable") {
      const next_start_at = rfc3339(clock.now() + JOURNAL_RETRY_MS);
      stored = { ...stored, target: undefined };
      const reason = "journal_unavailable: the journal cannot be written";
      await quietly(move("later", { reason, next_start_at, pid: undefined }));
      return false;
    }
    const cause = isSpawnVetoed(error) ? "policy" : "self";
    stored = { ...stored, agent: { ...stored.agent, run_id: runId, started_at: undefined } };
    return settle({
      status: { kind: "spawn_failed", error: { code: problem.code, detail: problem.message } },
      cause,
    });
  }

  function terminate(running: RunHandle) {
    const { agent, template } = stored;
    const wanted = graceMs ?? template.template.stop.graceMs;
    if (agent.state === "stopping" && stopping?.handle === running && stopping.graceMs <= wanted) return;
    stopping = { handle: running, graceMs: wanted };
    timers.stopWaitingForReady();
    if (agent.state !== "stopping") {
      // A kill never waits for the journal.
      void quietly(move("end", { reason: stored.ending?.reason ?? "asked to stop" }));
    }
    running.stop({ signal: template.template.stop.signal, graceMs: wanted }).then(
      (left) => {
        if (running === handle && left.survivors.length > 0) survived(left.survivors);
      },
      (error: unknown) => {
        log.error({ agent_id: id, err: error }, "a spawner could not stop a run; it is asked again");
        stopping = undefined;
        timers.retry(JOURNAL_RETRY_MS, poke);
      },
    );
  }

  function survived(left: Survivor[]) {
    survivors = left;
    const names = left.map(({ pid, name }) => `${name} (${pid})`).join(", ");
    stored = { ...stored, agent: { ...stored.agent, reason: `these could not be ended: ${names}` } };
    log.error({ agent_id: id, survivors }, "processes survived the kill");
    deps.changed(worker);
  }

  /** A run is over: what it was, and what follows. */
  async function settle(ended: RunOutcome): Promise<boolean> {
    const nowMs = clock.now();
    const ending = stored.ending ?? reports.interrupted();
    const exit = describeExit(ending ? { ...stored, ending } : stored, ended, nowMs);
    const run: RunRecord = {
      run_id: exit.run_id ?? "",
      agent_id: id,
      exit,
      ...(ended.result === undefined ? {} : { result: ended.result }),
    };
    // All that may throw comes first: what is dead must not stay "running".
    const next = whatFollows(stored, exit, deps.policy, {
      nowMs,
      uptimeMs: uptimeOf(exit),
      daemonStops: halted,
    });
    const nextStartAt = next.delayMs > 0 ? rfc3339(nowMs + next.delayMs) : undefined;
    outcome = undefined;
    handle = undefined;
    stopping = undefined;
    survivors = [];
    graceMs = undefined;
    stored = {
      ...stored,
      target: undefined,
      ending: undefined,
      restart_memory: next.memory,
      ...(hooks.afterExit.isUsed() ? { unreported: run } : {}),
    };
    const restarts = stored.agent.restarts + (next.counted ? 1 : 0);
    const patch: Partial<Agent> = {
      pid: undefined,
      containment: undefined,
      throttle: undefined,
      ready_at: undefined,
      resources: undefined,
      status: undefined,
      progress: undefined,
      health: "unknown",
      last_exit: exit,
      restarts,
      reason: next.reason,
      next_start_at: nextStartAt,
    };
    const exited = event("agent.exited", { ...exit });
    await quietly(move(next.event, patch, { runs: [run], events: [exited] }));
    return true;
  }

  function uptimeOf(exit: Exit): number {
    if (exit.kind === "spawn_failed") return 0;
    if (startedAtMonotonicMs !== undefined) return clock.monotonic() - startedAtMonotonicMs;
    return Math.max(0, Date.parse(exit.ended_at) - Date.parse(exit.started_at ?? exit.ended_at));
  }

  /** Tells the plugins of a finished run; journaled as done only after they were told. */
  async function report(run: RunRecord): Promise<boolean> {
    hookQueue.add(() => hooks.afterExit.promise({ agent: stored.agent, run_id: run.run_id, run }));
    await hookQueue.done();
    stored = { ...stored, unreported: undefined };
    if (!stored.deleting) await quietly(facts.write({}));
    return true;
  }

  async function forget(): Promise<boolean> {
    await hookQueue.done();
    try {
      // First: what it printed must not be found under its name by a later agent.
      await deps.spawner(stored.agent.spawner).forget?.(id);
    } catch (error) {
      log.error({ agent_id: id, err: error }, "what an agent left could not all be removed");
    }
    await deps.write({ forget: [id], events: [event("agent.deleted", {})] });
    timers.dispose();
    deps.gone(worker);
    return false;
  }

  function end(runId: string, ending: NonNullable<StoredAgent["ending"]>, grace?: number) {
    if (stored.agent.run_id !== runId || !isLive(stored.agent.state) || stored.ending) return;
    stored = { ...stored, ending };
    if (grace !== undefined) graceMs = grace;
    poke();
  }

  const worker: AgentWorker = {
    get stored() {
      return stored;
    },
    get waiting() {
      return waiting;
    },
    get busy() {
      return busy;
    },
    get launching() {
      return launching;
    },
    get survivors() {
      return survivors;
    },
    async intend(patch, change = {}) {
      const before = stored;
      deferred = undefined;
      const from = stored.agent.state;
      const to = change.event === undefined ? undefined : transition(from, change.event);
      const agent = { ...stored.agent, ...change.agent, ...(to === undefined ? {} : { state: to }) };
      stored = { ...stored, ...patch, agent };
      if (change.graceMs !== undefined)
        graceMs = Math.min(graceMs ?? Number.POSITIVE_INFINITY, change.graceMs);
      const wantsEnd = stored.agent.desired === "stopped" || stored.ending !== undefined;
      const { reason } = agent;
      const events =
        to === undefined ? [] : [event("agent.state", { from, to, ...(reason ? { reason } : {}) })];
      if (to !== undefined) timers.follow(stored);
      wish = deps.write({ put: [stored], events });
      // Ends are seen to at once; what is to run waits at its gate until the wish is durable.
      poke();
      try {
        await wish;
      } catch (error) {
        wish = Promise.resolve();
        if (!wantsEnd) {
          // Only what is still as this wish made it: other things may have happened meanwhile.
          const state = to === undefined ? {} : { state: to };
          const agentNow = undo(stored.agent, before.agent, { ...change.agent, ...state });
          stored = { ...undo(stored, before, patch), agent: agentNow };
        } else {
          // It is done all the same, so it is to be written as soon as it can be.
          void quietly(facts.write({}));
        }
        if (to !== undefined) timers.follow(stored);
        throw error;
      }
      deps.changed(worker);
    },
    poke,
    end,
    halt(ending, grace) {
      halted = true;
      if (grace !== undefined) graceMs = grace;
      if (ending && isLive(stored.agent.state) && !stored.ending) stored = { ...stored, ending };
      poke();
    },
    adopt(adopted) {
      const limits = heldBy(stored.agent.limits, adopted.held);
      const { containment } = adopted;
      stored = { ...stored, agent: { ...stored.agent, limits, containment } };
      take(adopted, true);
    },
    settleLater(ended) {
      outcome = ended;
    },
    ...reports.verbs,
    resume() {
      resumed = true;
      timers.follow(stored);
      poke();
    },
    dispose: timers.dispose,
  };
  return worker;
}

/** `now` with the keys of `patch` put back to what they `were`, where nothing else has changed them since. */
function undo<T extends object>(now: T, were: T, patch: Partial<T>): T {
  const mine = (Object.keys(patch) as (keyof T)[]).filter((key) => now[key] === patch[key]);
  return { ...now, ...Object.fromEntries(mine.map((key) => [key, were[key]])) };
}
