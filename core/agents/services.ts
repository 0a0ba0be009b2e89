import { type Agent, isService, SERVICE_ID_PATTERN } from "../contracts/agent.js";
import type { CreateAgent, Intent } from "../contracts/agent-control.js";
import { OpenStarryError } from "../contracts/errors.js";
import type { ServiceSpec } from "../contracts/service.js";
import type { AgentDrafts } from "./drafts.js";
import { isEnded, isLive } from "./state.js";
import type { AgentTable } from "./table.js";
import type { Waiters } from "./waiters.js";
import type { AgentWorker } from "./worker/worker.js";

/** The processes that plugins host for the agents. */
export interface Services {
  /** As `PluginContext.services.ensure`, for the plugin of this name. */
  ensure(name: string, spec: ServiceSpec, plugin: string): Promise<Agent>;
  get(name: string): Agent | undefined;
  /** Ends those of a daemon before that no plugin has asked for again. All plugins are started. */
  removeUnclaimed(): Promise<void>;
}

export interface ServicesDeps {
  table: AgentTable;
  drafts: AgentDrafts;
  create: (spec: CreateAgent, intent: Intent) => Promise<Agent>;
  wait: Waiters["wait"];
}

export function createServices({ table, drafts, create, wait }: ServicesDeps): Services {
  /** Which plugin asked for which service since the start. */
  const owners = new Map<string, string>();
  /** One request for a service is seen to after the other. */
  const turns = new Map<string, Promise<unknown>>();

  function claim(id: string, plugin: string) {
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

  async function see(id: string, wanted: CreateAgent, intent: Intent): Promise<Agent> {
    if (table.isQuarantined(id)) table.refuseTaken(id);
    const worker = table.workers.get(id);
    if (!worker) return create(wanted, intent);
    // Of an earlier daemon: what became of it meanwhile is seen to now, and not only when all plugins run.
    worker.resume();
    if (worker.stored.deleting) {
      await wait(worker, "gone");
      return create(wanted, intent);
    }
    if (worker.busy) await wait(worker, "settled");
    const { agent, template } = worker.stored;
    if (template.revision !== wanted.template?.revision) return change(worker, wanted, intent);
    if (isEnded(agent.state) || agent.desired !== "running") {
      await worker.setDesired(
        { restart_memory: undefined },
        { agent: { desired: "running", reason: undefined }, event: "start" },
      );
    }
    return worker.stored.agent;
  }

  async function change(worker: AgentWorker, wanted: CreateAgent, intent: Intent): Promise<Agent> {
    const { template, params, agent } = await drafts.draft(wanted, "service");
    const { template_revision } = agent;
    const ending = isLive(worker.stored.agent.state) ? { cause: "restart" as const, ...intent } : undefined;
    await worker.setDesired(
      { template, params, ending, restart_memory: undefined },
      { agent: { desired: "running", reason: undefined, template_revision }, event: "start" },
    );
    return worker.stored.agent;
  }

  return {
    ensure(name, spec, plugin) {
      const id = `svc:${name}`;
      const document = { ...spec.template, template_id: name };
      const intent = { actor: `plugin:${plugin}`, reason: `plugin ${plugin} asks for it` };
      const turn = async () => {
        claim(id, plugin);
        const revision = await revisionOf(document);
        const template = { template_id: name, document, revision, origin: `plugin ${plugin}` };
        return see(id, { agent_id: id, template_id: name, template }, intent);
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

async function revisionOf(document: unknown): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(JSON.stringify(document)));
  return [...new Uint8Array(digest, 0, 6)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
