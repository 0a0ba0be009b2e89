import { type Agent, isService, SERVICE_ID_PATTERN } from "../contracts/agent.js";
import type { CreateAgent, Intent } from "../contracts/agent-control.js";
import { OpenStarryError } from "../contracts/errors.js";
import type { ServiceSpec } from "../contracts/service.js";
import type { AgentsContext } from "./context.js";
import { isEnded, isLive } from "./state.js";
import type { AgentWorker } from "./worker/worker.js";

/** The processes that plugins host for the agents. */
export interface Services {
  /** As `PluginContext.services.ensure`, for the plugin of this name. */
  ensure(name: string, spec: ServiceSpec, plugin: string): Promise<Agent>;
  get(name: string): Agent | undefined;
  /** Ends the services of an earlier daemon that no plugin has asked for again. All plugins are started. */
  removeUnclaimed(): Promise<void>;
}

export function createServices(context: AgentsContext): Services {
  const { table } = context;
  /** Which plugin asked for which service since the start. */
  const owners = new Map<string, string>();
  /** Requests for one service are served one after the other. */
  const turns = new Map<string, Promise<unknown>>();
  return {
    ensure(name, spec, plugin) {
      const id = `svc:${name}`;
      const document = { ...spec.template, template_id: name };
      const intent = { actor: `plugin:${plugin}`, reason: `plugin ${plugin} asks for it` };
      const turn = async () => {
        claim(owners, id, plugin);
        const revision = await revisionOf(document);
        const template = { template_id: name, document, revision, origin: `plugin ${plugin}` };
        return ensureRunning(context, { agent_id: id, template_id: name, template }, intent);
      };
      const done = (turns.get(id) ?? Promise.resolve()).then(turn, turn);
      turns.set(id, done);
      return done;
    },
    get: (name) => table.workers.get(`svc:${name}`)?.stored.agent,
    async removeUnclaimed() {
      const reason = "no plugin asks for it any more";
      for (const worker of [...table.workers.values()]) {
        const { agent } = worker.stored;
        if (!isService(agent) || owners.has(agent.agent_id)) continue;
        const ending = { cause: "stop_request" as const, actor: "daemon", reason };
        await worker.setDesired(
          { deleting: true, ...(isLive(agent.state) ? { ending } : {}) },
          { agent: { desired: "stopped", reason } },
        );
      }
    },
  };
}

function claim(owners: Map<string, string>, id: string, plugin: string): void {
  if (!SERVICE_ID_PATTERN.test(id)) {
    throw new OpenStarryError("plugin_failed", {
      detail: `plugin ${plugin} asks for a service "${id.slice(4)}", which no service can be called`,
      hint: "use 1 to 41 of a-z 0-9 - that begin with a letter",
    });
  }
  const owner = owners.get(id) ?? plugin;
  if (owner !== plugin) {
    throw new OpenStarryError("plugin_conflict", {
      detail: `plugins ${owner} and ${plugin} both ask for a service "${id}"`,
      hint: "remove one of them from the config",
    });
  }
  owners.set(id, plugin);
}

async function ensureRunning(
  context: AgentsContext,
  wanted: CreateAgent & { agent_id: string },
  intent: Intent,
): Promise<Agent> {
  const { table, waiters } = context;
  const id = wanted.agent_id;
  if (table.isQuarantined(id)) table.refuseTaken(id);
  const worker = table.workers.get(id);
  if (!worker) return context.create(wanted, intent, "service");
  // Of an earlier daemon: its end, if it has ended, is settled now, and not only when all plugins run.
  worker.resume();
  if (worker.stored.deleting) {
    await waiters.wait(worker, "gone");
    return context.create(wanted, intent, "service");
  }
  if (worker.busy) await waiters.wait(worker, "settled");
  const { agent, template } = worker.stored;
  if (template.revision !== wanted.template?.revision) return replace(context, worker, wanted, intent);
  if (isEnded(agent.state) || agent.desired !== "running") {
    await worker.setDesired(
      { restart_memory: undefined },
      { agent: { desired: "running", reason: undefined }, event: "start" },
    );
  }
  return worker.stored.agent;
}

/** Runs a service by another template: one that lives is restarted. */
async function replace(
  { drafts }: AgentsContext,
  worker: AgentWorker,
  wanted: CreateAgent,
  intent: Intent,
): Promise<Agent> {
  const { template, params, agent } = await drafts.draft(wanted, "service");
  const { template_revision } = agent;
  const ending = isLive(worker.stored.agent.state) ? { cause: "restart" as const, ...intent } : undefined;
  await worker.setDesired(
    { template, params, ending, restart_memory: undefined },
    { agent: { desired: "running", reason: undefined, template_revision }, event: "start" },
  );
  return worker.stored.agent;
}

async function revisionOf(document: unknown): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(JSON.stringify(document)));
  return [...new Uint8Array(digest, 0, 6)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
