import {
  type Authorizer,
  authorizer,
  type DaemonEvent,
  definePlugin,
  type ExitStatus,
  type Journal,
  type JournalBatch,
  journal,
  type LimitReport,
  type Memo,
  OpenStarryError,
  type RestartPolicy,
  type RunHandle,
  type RunOutcome,
  type RunRecord,
  restartPolicy,
  type Spawner,
  type SpawnSpec,
  type StandardSchema,
  type StoredAgent,
  spawner,
  type TemplateDocument,
  type TemplateSource,
  templateSource,
} from "../../core/index.js";

/** Takes any options, and gives them on as they are: these plugins have none. */
const anyOptions: StandardSchema<unknown, unknown> = {
  "~standard": { version: 1, vendor: "openstarry", validate: (value) => ({ value }) },
};

/** What a memory journal holds: give it to the next one to play a daemon that starts again. */
export interface MemoryJournalState {
  agents: Map<string, StoredAgent>;
  runs: RunRecord[];
  events: DaemonEvent[];
  memos: Map<string, Memo>;
  secrets: Map<string, Record<string, string>>;
  /** While set, every append is refused. */
  broken: boolean;
}

export function memoryJournalState(): MemoryJournalState {
  return { agents: new Map(), runs: [], events: [], memos: new Map(), secrets: new Map(), broken: false };
}

export function memoryJournal(state: MemoryJournalState): Journal {
  return {
    capabilities: { durable: false },
    load: async () => ({ agents: structuredClone([...state.agents.values()]), quarantined: [] }),
    async append(given) {
      if (state.broken)
        throw new OpenStarryError("journal_unavailable", { detail: "the test journal is broken" });
      const batch = asJson(given);
      for (const stored of batch.put ?? []) state.agents.set(stored.agent.agent_id, stored);
      for (const run of batch.runs ?? []) {
        state.runs = [...state.runs.filter(({ run_id }) => run_id !== run.run_id), run];
      }
      for (const id of batch.forget ?? []) {
        state.agents.delete(id);
        state.secrets.delete(id);
        state.runs = state.runs.filter(({ agent_id }) => agent_id !== id);
      }
      for (const memo of batch.memos ?? []) state.memos.set(memo.key, memo);
      const numbered = (batch.events ?? []).map((event, index) => ({
        ...event,
        id: state.events.length + index + 1,
      }));
      state.events.push(...numbered);
      return numbered;
    },
    events: async ({ after, limit, agentId }) => ({
      events: state.events
        .filter((event) => event.id > after && (agentId === undefined || event.agent_id === agentId))
        .slice(0, limit),
      gap: false,
    }),
    lastEventId: () => state.events.length,
    runs: async (agentId, limit) =>
      state.runs
        .filter((run) => run.agent_id === agentId)
        .reverse()
        .slice(0, limit),
    memo: async (key) => {
      const memo = state.memos.get(key);
      return memo && memo.expiresAtMs > Date.now() ? memo.value : undefined;
    },
    secrets: {
      get: async (agentId) => state.secrets.get(agentId) ?? {},
      set: async (agentId, values) => void state.secrets.set(agentId, { ...values }),
    },
  };
}

/** What a real journal would keep of it; nothing when it cannot keep all. */
function asJson(batch: JournalBatch): JournalBatch {
  try {
    return JSON.parse(JSON.stringify(batch)) as JournalBatch;
  } catch (cause) {
    throw new OpenStarryError("journal_unavailable", {
      detail: "the batch cannot be written as JSON",
      cause,
    });
  }
}

/** A run that exists in memory alone, ended by the test. */
export interface MemoryRun {
  readonly spec: Pick<SpawnSpec, "agentId" | "runId">;
  readonly pid: number;
  /** The signals it got, in order. */
  readonly signals: string[];
  readonly live: boolean;
  /** The CPU that it was given; `undefined`: all. */
  readonly throttledTo: number | undefined;
  /** Plays an operating system that acts on a limit. */
  limit(report: LimitReport): void;
  end(outcome: ExitStatus | RunOutcome): void;
}

export interface MemorySpawner extends Spawner {
  readonly runs: MemoryRun[];
  /** The newest run of an agent. */
  run(agentId: string): MemoryRun;
  /** Thrown by the next spawn, once. */
  failNext(error: unknown): void;
}

/**
 * Processes that are objects. A stop signal ends them unless `stubborn` names their agent. With `holds`
 * it says that the operating system holds every limit that it was given.
 */
export function memorySpawner(
  options: { stubborn?: readonly string[]; name?: string; holds?: boolean } = {},
): MemorySpawner {
  const runs: (MemoryRun & { handle: RunHandle })[] = [];
  let failure: unknown;

  function begin(spec: Pick<SpawnSpec, "agentId" | "runId" | "limits">): MemoryRun & { handle: RunHandle } {
    let ended = false;
    let resolve: (outcome: RunOutcome) => void = () => {};
    const exit = new Promise<RunOutcome>((done) => {
      resolve = done;
    });
    const end: MemoryRun["end"] = (outcome) => {
      ended = true;
      resolve("kind" in outcome ? { status: outcome } : outcome);
    };
    const signals: string[] = [];
    let throttledTo: number | undefined;
    let limit = (_report: LimitReport) => {};
    const pid = 100_000 + runs.length;
    const handle: RunHandle = {
      target: { run: spec.runId },
      pid,
      containment: "full",
      ...(options.holds && spec.limits ? { held: spec.limits } : {}),
      exit,
      async throttle(percent) {
        throttledTo = percent;
        return percent === undefined ? undefined : "quota";
      },
      onLimit(listener) {
        limit = listener;
      },
      signal: async (signal) => void signals.push(signal),
      async stop({ signal, graceMs }) {
        const refuses = options.stubborn?.includes(spec.agentId) ?? false;
        signals.push(refuses && graceMs === 0 ? "SIGKILL" : signal);
        if (!refuses) end({ kind: "exited", code: 0 });
        if (refuses && graceMs === 0) end({ kind: "signaled", signal: "SIGKILL" });
        await exit;
        return { survivors: [] };
      },
    };
    const run = {
      spec,
      pid,
      signals,
      handle,
      end,
      limit: (report: LimitReport) => limit(report),
      get throttledTo() {
        return throttledTo;
      },
      get live() {
        return !ended;
      },
    };
    runs.push(run);
    return run;
  }

  return {
    name: options.name ?? "process",
    capabilities: { adopt: true },
    runs,
    run(agentId) {
      const found = runs.findLast((run) => run.spec.agentId === agentId);
      if (!found) throw new Error(`no run of ${agentId}`);
      return found;
    },
    failNext(error) {
      failure = error;
    },
    async check() {},
    async spawn(spec, commit) {
      if (failure !== undefined) {
        const thrown = failure;
        failure = undefined;
        throw thrown;
      }
      const run = begin(spec);
      try {
        await commit(run.handle);
      } catch (error) {
        // It was held at the gate, and never ran.
        runs.splice(runs.indexOf(run), 1);
        throw error;
      }
      return run.handle;
    },
    async adopt({ runId }) {
      const run = runs.find((it) => it.spec.runId === runId);
      if (run?.live) return { handle: run.handle };
      return { outcome: run ? await run.handle.exit : { status: { kind: "lost" } } };
    },
    async processes(runIds) {
      const wanted = runs.filter((run) => run.live && runIds.includes(run.spec.runId));
      return new Map(wanted.map(({ spec, pid }) => [spec.runId, [{ pid, start_ticks: 0 }]]));
    },
  };
}

/** Templates from an object of documents, by id. */
export function memoryTemplates(documents: Record<string, Record<string, unknown>>): TemplateSource {
  const find = (id: string): TemplateDocument | undefined => {
    const document = Object.hasOwn(documents, id) ? documents[id] : undefined;
    if (!document) return undefined;
    const full = { template_id: id, command: "/bin/agent", ...document };
    return {
      template_id: id,
      revision: JSON.stringify(full).length.toString(16),
      document: full,
      origin: "memory",
      baseDir: "/",
    };
  };
  return {
    name: "memory",
    get: async (id) => find(id),
    list: async () => ({ documents: Object.keys(documents).flatMap((id) => find(id) ?? []), invalid: [] }),
  };
}

/** Restarts at once after a failure, until `max_restarts` are used up. */
export const simpleRestartPolicy: RestartPolicy = {
  decide({ exit, rules, memory }) {
    const count = typeof memory === "number" ? memory : 0;
    if (rules.policy === "never" || (rules.policy === "on-failure" && exit.success)) {
      return { action: "exit", reason: "no restart", memory: count };
    }
    if (count >= rules.max_restarts)
      return { action: "fail", reason: `${count} restarts are enough`, memory: count };
    return {
      action: "restart",
      delayMs: rules.backoff.minMs,
      reason: `restart ${count + 1}`,
      memory: count + 1,
    };
  },
};

/** Lets the operator and the daemon's own parts do everything, and nobody else anything. */
export const operatorOnly: Authorizer = {
  authorize: ({ operation, principal: { id, kind } }) =>
    kind === "operator" || kind === "internal"
      ? { verdict: "allow" }
      : { verdict: "deny", code: "forbidden", detail: `${id} may not do ${operation}` },
};

/** Lets every principal do everything: for tests of what operations themselves show and refuse. */
export const allowAll: Authorizer = { authorize: () => ({ verdict: "allow" }) };

/** One plugin that provides all that the kernel needs. */
export function memoryPlugin(parts: {
  journal: Journal;
  spawner: Spawner;
  templates: TemplateSource;
  policy?: RestartPolicy;
  /** Default: `operatorOnly`. `false`: another plugin provides one. */
  authorizer?: Authorizer | false;
}) {
  const { authorizer: decides = operatorOnly } = parts;
  return definePlugin({
    name: "memory",
    apiVersion: 1,
    provides: [journal, spawner, templateSource, restartPolicy, ...(decides ? [authorizer] : [])],
    options: anyOptions,
    setup(ctx) {
      ctx.provide(journal, parts.journal);
      ctx.provide(spawner, parts.spawner);
      ctx.provide(templateSource, parts.templates);
      ctx.provide(restartPolicy, parts.policy ?? simpleRestartPolicy);
      if (decides) ctx.provide(authorizer, decides);
    },
  });
}
