import { isService } from "../contracts/agent.js";
import type { CreateAgent, Intent } from "../contracts/agent-control.js";
import type { Config, ConfigAgent } from "../contracts/config.js";
import { toOpenStarryError } from "../contracts/errors.js";
import type { EventData } from "../contracts/events.js";
import { journal } from "../contracts/journal.js";
import { type AdoptSpec, type Stray, spawner } from "../contracts/spawner.js";
import type { StoredAgent } from "../contracts/stored-agent.js";
import { parseParams } from "../template/params.js";
import { checkConfigAgents } from "./config-agents.js";
import type { AgentDrafts } from "./drafts.js";
import type { Families } from "./families.js";
import type { MasterFirst } from "./master-first.js";
import { isLive } from "./state.js";
import type { SupervisorDeps } from "./supervisor-deps.js";
import type { AgentTable } from "./table.js";
import type { AgentWorker } from "./worker/worker.js";

export interface RecoveryDeps extends SupervisorDeps {
  table: AgentTable;
  drafts: AgentDrafts;
  masterFirst: MasterFirst;
  families: Families;
  worker: (stored: StoredAgent) => AgentWorker;
  create: (spec: CreateAgent, intent: Intent) => Promise<unknown>;
  emit: (type: "record.quarantined", data: EventData["record.quarantined"]) => Promise<void>;
}

/** What a boot does about the agents of the daemon before. */
export interface Recovery {
  /** Reads the journal and takes over what lives. The journal and the spawners are started. */
  load(): Promise<void>;
  /** Brings what is towards what is wanted: the master first. All plugins are started. */
  reconcile(options: { fresh: boolean }): Promise<void>;
}

export function createRecovery(deps: RecoveryDeps): Recovery {
  const { slots, log, table } = deps;

  async function load(): Promise<void> {
    const { agents, quarantined } = await slots.use(journal).load();
    for (const { key, error } of quarantined)
      await quarantine(key, `record ${key} could not be read: ${error}`);
    const adopted = await Promise.all(agents.map(adopt));
    const live = new Set(adopted.filter((runId) => runId !== undefined));
    for (const it of slots.use(spawner).values()) {
      try {
        const known = [...table.workers].map(([id, { stored }]) => [id, stored.agent.run_id] as const);
        const strays = (await it.sweep?.(live, new Map(known))) ?? [];
        for (const stray of strays) await report(stray, live);
      } catch (error) {
        log.error({ err: error }, "leftovers could not be cleared away");
      }
    }
  }

  async function report({ agentId, pids }: Stray, live: ReadonlySet<string>): Promise<void> {
    if (table.isQuarantined(agentId)) return;
    const pid = pids.join(", ");
    const worker = table.workers.get(agentId);
    if (worker && live.has(worker.stored.agent.run_id ?? "")) {
      // The run of its record is taken over already, and there is no second start to fear.
      const problem = `another run of agent ${agentId} goes on (pid ${pid}), and the journal does not know of it; it is left alone`;
      deps.problem(`agent:${agentId}`, problem);
      return;
    }
    // Its record is of an earlier time: by that it would be started a second time.
    worker?.dispose();
    if (worker) table.remove(worker);
    await quarantine(agentId, `agent ${agentId} runs (pid ${pid}), and the journal does not know of it`);
  }

  /** Unknown is not dead: it may live, and nobody here can tell. Its id stays taken. */
  async function quarantine(agentId: string, problem: string): Promise<void> {
    table.quarantine(agentId, problem);
    deps.problem(
      `agent:${agentId}`,
      `${problem}; it is left alone (agent rm ${agentId} ends and forgets it)`,
    );
    // A journal that cannot be written is no reason to leave the others alone.
    await deps.emit("record.quarantined", { key: agentId, error: problem }).catch(() => {});
  }

  /** Answers the run that lives on. */
  async function adopt(stored: StoredAgent): Promise<string | undefined> {
    // What it used when an earlier daemon looked last says nothing of now.
    const agent = { ...stored.agent, resources: undefined };
    const worker = deps.worker({ ...stored, agent });
    table.add(worker);
    if (!isLive(agent.state)) return undefined;
    const { stop, logs } = stored.template.template;
    const spec = { agentId: agent.agent_id, runId: agent.run_id ?? "", target: stored.target, stop, logs };
    const found = await takeOver(agent.spawner, spec);
    if ("problem" in found) {
      table.remove(worker);
      await quarantine(agent.agent_id, found.problem);
      return agent.run_id;
    }
    if (found.handle) worker.adopt(found.handle);
    else worker.recordExit(found.outcome);
    return found.handle ? agent.run_id : undefined;
  }

  /** A problem when its spawner is not there, or could not say. */
  async function takeOver(name: string, spec: AdoptSpec) {
    try {
      return await deps.drafts.spawner(name).adopt(spec);
    } catch (error) {
      log.error({ agent_id: spec.agentId, err: error }, "an agent could not be taken over");
      return {
        problem: `agent ${spec.agentId} could not be taken over: ${toOpenStarryError(error).message}`,
      };
    }
  }

  async function reconcile({ fresh }: { fresh: boolean }): Promise<void> {
    const config = deps.config();
    const named = new Set(config.agents.map(({ agent_id }) => agent_id));
    const [master] = named;
    await checkConfigAgents({
      agents: config.agents,
      file: deps.configFile,
      isKnown: (id) => table.workers.has(id) || table.isQuarantined(id),
      check: (wanted) => deps.drafts.draft(wanted, "config"),
    });
    if (master !== undefined && !table.isQuarantined(master))
      deps.masterFirst.begin(master, [...named, ...table.workers.keys()]);
    deps.families.catchUp();
    for (const wanted of config.agents) await bringBack(wanted);
    for (const worker of inOrder(config)) {
      const { agent } = worker.stored;
      if (fresh && !named.has(agent.agent_id) && !isService(agent)) {
        const reason = "the daemon was started with --fresh";
        await worker.setDesired(
          isLive(agent.state) ? { ending: { cause: "stop_request", actor: "operator", reason } } : {},
          { agent: { desired: "stopped", reason } },
        );
      } else if (agent.state === "stopped" && agent.desired === "running") {
        await worker.setDesired({}, { agent: { reason: undefined }, event: "start" });
      }
      worker.resume();
    }
  }

  /** The master first, then the config's other agents, then the rest by age. */
  function inOrder(config: Config): AgentWorker[] {
    const first = config.agents.flatMap(({ agent_id }) => table.workers.get(agent_id) ?? []);
    return [...first, ...[...table.workers.values()].filter((worker) => !first.includes(worker))];
  }

  /**
   * A config agent without a record gets one; one with a record keeps it, with today's parameters. One
   * whose record cannot be read may be alive: it is not made a second time.
   */
  async function bringBack(wanted: ConfigAgent): Promise<void> {
    if (table.isQuarantined(wanted.agent_id)) return;
    const worker = table.workers.get(wanted.agent_id);
    const intent = { actor: "config", reason: "named in the config" };
    if (!worker) {
      await deps.create(wanted, intent);
      return;
    }
    const { stored } = worker;
    if (isLive(stored.agent.state)) return;
    try {
      const template = await deps.templates.find(wanted.template_id);
      const params = parseParams(template, wanted.params);
      await slots.use(journal).secrets.set(wanted.agent_id, wanted.env);
      const agent = { template_id: wanted.template_id, template_revision: template.revision };
      await worker.setDesired({ template, params, origin: "config" }, { agent });
    } catch (error) {
      // It has run before: what it was pinned to is better than nothing.
      deps.problem(
        `agent:${wanted.agent_id}`,
        `${toOpenStarryError(error).message}; the former template is used`,
      );
    }
  }

  return { load, reconcile };
}
