import {
  type Agent,
  type AgentLimits,
  ID_PATTERN,
  isService,
  SERVICE_ID_PATTERN,
} from "../contracts/agent.js";
import type { CreateAgent } from "../contracts/agent-control.js";
import { authenticator } from "../contracts/authenticator.js";
import { OpenStarryError } from "../contracts/errors.js";
import { journal } from "../contracts/journal.js";
import { type Spawner, type SpawnSpec, spawner } from "../contracts/spawner.js";
import type { StoredAgent } from "../contracts/stored-agent.js";
import type { TemplateValues } from "../contracts/template-section.js";
import { rfc3339 } from "../lib/clock.js";
import { shortId } from "../lib/ids.js";
import { parseParams } from "../template/params.js";
import { checkRequires } from "../template/requires.js";
import { limitsOf } from "../template/resources.js";
import { buildSpec, protectSpec, type SpecSources } from "../template/spawn-spec.js";
import type { SupervisorDeps } from "./supervisor-deps.js";

/** From templates to records, and from records to what is started. */
export interface AgentDrafts {
  /** The record of a new agent: everything about it checked, nothing changed. */
  draft(spec: CreateAgent, origin: StoredAgent["origin"]): Promise<StoredAgent>;
  /** The newest revision of its template and the parameters for it; nothing where it has a template of its own. */
  repin(stored: StoredAgent): Promise<Pick<StoredAgent, "template" | "params"> | undefined>;
  /** The spec of its next run, after `beforeSpawn`. */
  prepare(stored: StoredAgent, runId: string): Promise<SpawnSpec>;
  /** What its next run may use. */
  limits(stored: StoredAgent): AgentLimits;
  /** Rejects with `spawner_not_found`. */
  spawner(name: string): Spawner;
}

/** Stands for the run that a check is about: there is none yet. */
const NO_RUN = "00000000-0000-7000-8000-000000000000";

const valuesOf = ({ agent, params }: StoredAgent): TemplateValues => ({ agentId: agent.agent_id, params });

export function createAgentDrafts(deps: SupervisorDeps): AgentDrafts {
  return {
    draft: (spec, origin) => draft(deps, spec, origin),
    spawner: (name) => findSpawner(deps, name),
    limits: ({ agent, template }) =>
      limitsOf(template.template.resources, isService(agent) ? undefined : deps.config().defaults.resources),
    async repin(stored) {
      if (stored.inline) return undefined;
      const template = await deps.templates.find(stored.agent.template_id);
      const params = parseParams(template, stored.params);
      await checkStart(deps, { ...stored, template, params }, await secretsOf(deps, stored));
      return { template, params };
    },
    prepare: (stored, runId) => prepare(deps, stored, runId),
  };
}

async function draft(
  deps: SupervisorDeps,
  spec: CreateAgent,
  origin: StoredAgent["origin"],
): Promise<StoredAgent> {
  const template = spec.template
    ? deps.templates.parse(spec.template)
    : await deps.templates.find(spec.template_id);
  const agentId = spec.agent_id ?? `${spec.template_id.slice(0, 56)}-${shortId()}`;
  if (!(origin === "service" ? SERVICE_ID_PATTERN : ID_PATTERN).test(agentId)) {
    throw new OpenStarryError("input_invalid", {
      detail: `agent_id ${JSON.stringify(agentId.slice(0, 80))} is not valid`,
      hint: "use 1 to 63 of A-Z a-z 0-9 . _ - and do not start with . or -",
    });
  }
  checkRequires(agentId, template, deps.endpoints());
  const desired = spec.start === false ? "stopped" : "running";
  const agent: Agent = {
    agent_id: agentId,
    template_id: spec.template_id,
    template_revision: template.revision,
    state: desired === "stopped" ? "stopped" : "pending",
    desired,
    health: "unknown",
    ...(spec.parent_id === undefined ? {} : { parent_id: spec.parent_id }),
    spawner: template.template.spawner,
    restarts: 0,
    created_at: rfc3339(deps.clock.now()),
    labels: {
      ...(origin === "service" ? {} : deps.config().defaults.labels),
      ...template.template.labels,
      ...spec.labels,
    },
  };
  const stored: StoredAgent = { agent, template, params: parseParams(template, spec.params ?? {}), origin };
  if (spec.template) stored.inline = true;
  await checkStart(deps, stored, spec.env ?? {});
  return stored;
}

/** Refuses what can be known to fail before a start. */
async function checkStart(
  deps: SupervisorDeps,
  stored: StoredAgent,
  secrets: SpecSources["secrets"],
): Promise<void> {
  deps.templates.checkStart(stored.template, valuesOf(stored));
  const spec = buildSpec(stored, NO_RUN, sourcesOf(deps, secrets));
  await findSpawner(deps, stored.template.template.spawner).check(spec);
}

async function prepare(deps: SupervisorDeps, stored: StoredAgent, runId: string): Promise<SpawnSpec> {
  const { slots, hooks, templates } = deps;
  // A plugin may have gone since the template was pinned: without a probe nothing would make it ready.
  templates.checkStart(stored.template, valuesOf(stored));
  const mints = slots.has(authenticator) && !isService(stored.agent);
  const token = mints ? slots.use(authenticator).mint({ agentId: stored.agent.agent_id, runId }) : undefined;
  const spec = buildSpec(stored, runId, { ...sourcesOf(deps, await secretsOf(deps, stored)), token });
  return hooks.beforeSpawn.isUsed() ? protectSpec(spec, await hooks.beforeSpawn.promise(spec)) : spec;
}

function findSpawner({ slots }: SupervisorDeps, name: string): Spawner {
  const known = slots.use(spawner);
  const found = known.get(name);
  if (found) return found;
  throw new OpenStarryError("spawner_not_found", {
    detail: `there is no spawner "${name}"`,
    hint: `known: ${[...known.keys()].join(", ")}; add a plugin that provides it, or change "spawner" in the template`,
  });
}

function secretsOf({ slots }: SupervisorDeps, { agent }: StoredAgent): Promise<Record<string, string>> {
  return slots.use(journal).secrets.get(agent.agent_id);
}

function sourcesOf(deps: SupervisorDeps, secrets: SpecSources["secrets"]): SpecSources {
  return { dataDir: deps.dataDir, defaults: deps.config().defaults, endpoints: deps.endpoints(), secrets };
}
