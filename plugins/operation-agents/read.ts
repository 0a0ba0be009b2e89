import { z } from "zod";
import {
  AGENT_STATES,
  type Agent,
  defineOperation,
  ID_PATTERN,
  idSchema,
  OpenStarryError,
  type Operation,
  type PluginContext,
  type Principal,
  sampler,
  spawner,
} from "../../core/index.js";
import { requireAgent, visibleAgents } from "./lookup.js";
import { agentSchema, exitSchema, ofAgent, waitTimeout } from "./schemas.js";
import { listTool, resultTool, statusTool, waitTool } from "./tools.js";
import { waitAtMost } from "./wait.js";

const listInput = z.strictObject({
  state: z.enum(AGENT_STATES).optional(),
  template_id: idSchema.optional(),
  parent_id: idSchema.optional(),
  label: z.string().max(400).optional().meta({ description: '"name=value", or "name" alone.' }),
  all: z.boolean().default(false).meta({ description: "The services of plugins too." }),
  limit: z.int().min(1).max(1_000).default(100),
  cursor: z.string().max(400).optional().meta({ description: "The next_cursor of the page before." }),
});
type ListInput = z.output<typeof listInput>;

const resultSchema = z.object({
  agent_id: z.string(),
  run_id: z.string(),
  result: z.string().meta({ description: "As the agent wrote it." }),
  exit: exitSchema,
});

/** Finished runs that are looked through for a result. */
const RUNS_LOOKED_AT = 20;

/** `agents.list`, `agents.get`, `agents.result`. */
export function readOperations(ctx: PluginContext): Operation<never>[] {
  return [
    defineOperation({
      name: "agents.list",
      summary: "The agents that the caller may see, oldest first.",
      scope: "agent:list",
      input: listInput,
      output: z.object({ items: z.array(agentSchema), next_cursor: z.string().optional() }),
      http: { method: "GET", path: "/agents" },
      tools: [listTool],
      handler: async (input, { principal }) => list(ctx, input, principal),
    }),
    defineOperation({
      name: "agents.get",
      summary:
        "One agent. With wait_for the answer comes when it is ready (or will not become so) or has ended; when the timeout is over first, it is answered as it is.",
      scope: "agent:read",
      input: z.strictObject({
        ...ofAgent,
        wait_for: z.enum(["ready", "ended"]).optional(),
        timeout: waitTimeout,
        pss: z.boolean().default(false).meta({
          description: "Measure resources.pss_bytes, which takes longer than the other figures.",
        }),
      }),
      output: agentSchema,
      http: { method: "GET", path: "/agents/{agent_id}" },
      tools: [waitTool, statusTool],
      async handler({ agent_id, wait_for, timeout, pss }, { principal, signal }) {
        const found = requireAgent(ctx.agents, agent_id, principal);
        const agent = wait_for
          ? await waitAtMost(ctx, agent_id, wait_for, { timeoutMs: timeout, signal })
          : found;
        return pss ? withPss(ctx, agent) : agent;
      },
    }),
    defineOperation({
      name: "agents.result",
      summary: "What the newest finished run wrote to its result file.",
      scope: "agent:read",
      input: z.strictObject(ofAgent),
      output: resultSchema,
      http: { method: "GET", path: "/agents/{agent_id}/result" },
      tools: [resultTool],
      handler: ({ agent_id }, { principal }) => result(ctx, agent_id, principal),
    }),
  ];
}

/** With `resources.pss_bytes`, where it can be told. */
async function withPss(ctx: PluginContext, agent: Agent): Promise<Agent> {
  const { resources, run_id = "" } = agent;
  if (!resources || !ctx.has(sampler)) return agent;
  try {
    const trees = await ctx.use(spawner).get(agent.spawner)?.processes?.([run_id]);
    const pss_bytes = await ctx.use(sampler).proportionalMemory?.(trees?.get(run_id) ?? []);
    return pss_bytes === undefined ? agent : { ...agent, resources: { ...resources, pss_bytes } };
  } catch (err) {
    ctx.log.warn({ agent_id: agent.agent_id, err }, "the memory that it shares could not be measured");
    return agent;
  }
}

function list(ctx: PluginContext, input: ListInput, principal: Principal) {
  const wanted = labelFilter(input.label);
  const found = visibleAgents(ctx.agents, principal).filter(
    (agent) =>
      (input.all || ID_PATTERN.test(agent.agent_id)) &&
      (input.state === undefined || agent.state === input.state) &&
      (input.template_id === undefined || agent.template_id === input.template_id) &&
      (input.parent_id === undefined || agent.parent_id === input.parent_id) &&
      wanted(agent),
  );
  const after = input.cursor === undefined ? undefined : readCursor(input.cursor);
  const rest = found
    .map((agent) => ({ agent, place: placeOf(agent) }))
    .sort((a, b) => (a.place < b.place ? -1 : 1))
    .filter(({ place }) => after === undefined || place > after);
  const items = rest.slice(0, input.limit).map(({ agent }) => agent);
  const last = items.at(-1);
  return {
    items,
    ...(last && rest.length > items.length ? { next_cursor: writeCursor(placeOf(last)) } : {}),
  };
}

/** Where an agent stands in the list: it never moves, so no page misses or repeats one. */
function placeOf(agent: Agent): string {
  return `${agent.created_at} ${agent.agent_id}`;
}

function writeCursor(place: string): string {
  return Buffer.from(place).toString("base64url");
}

function readCursor(cursor: string): string {
  const place = Buffer.from(cursor, "base64url").toString();
  if (/^\d{4}-\d\d-\d\dT[\d:.]+Z \S+$/.test(place) && writeCursor(place) === cursor) return place;
  throw new OpenStarryError("input_invalid", {
    detail: "cursor is not one that was handed out",
    hint: "take it from next_cursor of the page before, or leave it out to begin again",
  });
}

function labelFilter(label: string | undefined): (agent: Agent) => boolean {
  if (label === undefined) return () => true;
  const split = label.indexOf("=");
  const name = split < 0 ? label : label.slice(0, split);
  if (name === "") {
    throw new OpenStarryError("input_invalid", {
      detail: `label: ${JSON.stringify(label.slice(0, 80))} names no label`,
      hint: 'give it as "name=value", or "name" alone',
    });
  }
  return ({ labels }) =>
    Object.hasOwn(labels, name) && (split < 0 || labels[name] === label.slice(split + 1));
}

async function result(ctx: PluginContext, agentId: string, principal: Principal) {
  const agent = requireAgent(ctx.agents, agentId, principal);
  const runs = await ctx.journal.runs(agentId, RUNS_LOOKED_AT);
  const left = runs.find((run) => run.result !== undefined);
  if (left) return { agent_id: agentId, run_id: left.run_id, result: left.result ?? "", exit: left.exit };
  const live = agent.pid !== undefined;
  throw new OpenStarryError("result_not_found", {
    detail: live
      ? `agent ${agentId} is ${agent.state}; a result is there once a run has ended`
      : runs.length === 0
        ? `agent ${agentId} is ${agent.state} and has not run yet`
        : `agent ${agentId} wrote nothing to its result file`,
    hint: live
      ? `wait for it with GET /agents/${agentId}?wait_for=ended`
      : `GET /agents/${agentId}/why tells what became of it`,
  });
}
