import type { AgentControl } from "../contracts/agent-control.js";
import type { AgentLookup } from "../contracts/agent-lookup.js";
import type { AgentReports } from "../contracts/agent-reports.js";
import type { Config } from "../contracts/config.js";
import type { EventData, EventType, NewEvent } from "../contracts/events.js";
import { journal } from "../contracts/journal.js";
import type { JournalAccess } from "../contracts/journal-access.js";
import { restartPolicy } from "../contracts/restart-policy.js";
import { rfc3339 } from "../lib/clock.js";
import { createAwaitedEndpoints } from "./awaited-endpoints.js";
import { blockerOf } from "./blocker.js";
import type { AgentsContext } from "./context.js";
import { createAgentControl } from "./control.js";
import { createAgent } from "./create.js";
import { createAgentDrafts } from "./drafts.js";
import { createJournalWrite } from "./journal-write.js";
import { createAgentLookup } from "./lookup.js";
import { reconcile } from "./reconcile.js";
import { reconfigure } from "./reconfigure.js";
import { recover } from "./recover.js";
import { createAgentReports } from "./reports.js";
import { createServices, type Services } from "./services.js";
import { releaseAll, type StopAllOptions, stopAll } from "./stop-all.js";
import type { SupervisorDeps } from "./supervisor-deps.js";
import { AgentTable } from "./table.js";
import { Waiters } from "./waiters.js";
import { AgentWorker, type WorkerDeps, type WorkerObserver } from "./worker/worker.js";

/** The four parts of a plugin's context that are about agents. */
export interface AgentCommands {
  readonly agents: AgentLookup;
  readonly control: AgentControl;
  readonly reports: AgentReports;
  readonly journal: JournalAccess;
}

export interface Supervisor {
  readonly commands: AgentCommands;
  readonly services: Services;
  /** Reads the journal and takes over what lives. The journal and the spawners are started. */
  load(): Promise<void>;
  /** Brings what is towards what is desired. All plugins are started. */
  reconcile(options: { fresh: boolean }): Promise<void>;
  /** Adds and stops what the config names; answers what was done, in words. */
  reconfigure(before: Config, after: Config): Promise<string[]>;
  /** Ends all agents, dependents first; resolves when they are over. */
  stopAll(options: StopAllOptions): Promise<void>;
  /** Lets go of the agents without touching them. */
  release(): void;
  /** Looks at everything that waits again. */
  recheck(): void;
  emit<T extends EventType>(type: T, data: EventData[T]): Promise<void>;
}

/** Keeps the table of agents, each with its worker, and brings the parts together. */
export function createSupervisor(deps: SupervisorDeps): Supervisor {
  const context = createContext(deps);
  const { table, write } = context;
  const commands: AgentCommands = {
    agents: createAgentLookup(context),
    control: createAgentControl(context),
    reports: createAgentReports(context),
    journal: createJournalAccess(context),
  };
  const emit: Supervisor["emit"] = (type, data) =>
    write({ events: [{ type, at: rfc3339(deps.clock.now()), data } as NewEvent] });
  const services = createServices(context);
  return {
    commands,
    services,
    emit,
    load: () => recover({ ...context, emit }),
    async reconcile(options) {
      await services.removeUnclaimed();
      await reconcile(context, options);
      table.open();
    },
    reconfigure: (before, after) => reconfigure(context, commands.control, before, after),
    stopAll: (options) => stopAll(context, options),
    release: () => releaseAll(context),
    recheck() {
      for (const worker of table.workers.values()) worker.poke();
    },
  };
}

function createContext(deps: SupervisorDeps): AgentsContext {
  const { clock } = deps;
  const table = new AgentTable();
  const waiting = new Set<AgentWorker>();
  const context: AgentsContext = {
    ...deps,
    table,
    waiting,
    drafts: createAgentDrafts(deps),
    waiters: new Waiters(clock, (id) => table.workers.get(id)),
    awaited: createAwaitedEndpoints({
      clock,
      endpoints: deps.endpoints,
      isAnybodyWaiting: () => waiting.size > 0,
      usable() {
        for (const worker of waiting) worker.poke();
      },
    }),
    write: createJournalWrite(deps),
    create: (spec, intent, origin) => createAgent(context, spec, intent, origin),
    newWorker: (stored, written) => new AgentWorker(stored, workerDeps, written),
  };
  const workerDeps = { ...workerDepsOf(context), ...observerOf(context) };
  return context;
}

function workerDepsOf(context: AgentsContext): WorkerDeps {
  const { clock, log, hooks, write, drafts, slots, awaited } = context;
  return {
    clock,
    log,
    hooks,
    write,
    spawner: drafts.spawner,
    policy: () => slots.use(restartPolicy),
    prepare: drafts.prepare,
    limits: drafts.limits,
    requestRequired: ({ template }) => awaited.want(template.template.requires),
    blocker: (stored) => blockerOf(stored, context),
  };
}

/** What follows for others when an agent changes. */
function observerOf({ table, waiters, waiting }: AgentsContext): WorkerObserver {
  return {
    changed(worker) {
      waiters.look(worker);
      // What they wait for may have come about.
      for (const other of waiting) if (other !== worker) other.poke();
    },
    idle(worker) {
      if (worker.waiting) waiting.add(worker);
      else waiting.delete(worker);
      waiters.look(worker);
    },
    gone(worker) {
      waiting.delete(worker);
      table.remove(worker);
      waiters.gone(worker);
    },
  };
}

function createJournalAccess({ slots, write }: AgentsContext): JournalAccess {
  const current = () => slots.use(journal);
  return {
    runs: (agentId, limit) => current().runs(agentId, limit),
    events: (query) => current().events(query),
    lastEventId: () => current().lastEventId(),
    memo: (key) => current().memo(key),
    putMemo: (memo) => write({ memos: [memo] }),
  };
}
