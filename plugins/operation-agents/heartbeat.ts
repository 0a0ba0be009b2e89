import { z } from "zod";
import {
  type Agent,
  defineOperation,
  isOpenStarryError,
  OpenStarryError,
  type Operation,
  type PluginContext,
  type Principal,
  type Usage,
} from "../../core/index.js";
import { createStatusThrottle } from "../kit/throttle-status.js";
import { requireOwnAgent } from "./lookup.js";
import { ofAgent } from "./schemas.js";

/** Beyond what any run can have used: a mistake of the one who reports. */
const MOST_TOKENS = 1e12;
const MOST_USD = 1e6;

/** So often at most the words of a run are written to the journal; they are shown at once. */
const WORDS_EVERY_MS = 1_000;

const amount = (most: number) => z.number().min(0).max(most).optional();

const inputSchema = z.strictObject({
  ...ofAgent,
  status: z.string().max(1_000).optional().meta({ description: "What it is doing, in its own words." }),
  progress: z.number().min(0).max(1).optional().meta({ description: "From 0 to 1." }),
  usage: z
    .strictObject({
      input_tokens: amount(MOST_TOKENS),
      output_tokens: amount(MOST_TOKENS),
      cost_usd: amount(MOST_USD),
    })
    .optional()
    .meta({
      description: "What this run has used so far; what is left out, or less than before, stays as it was.",
    }),
});

const outputSchema = z.object({
  agent_id: z.string(),
  run_id: z.string(),
  state: z.string(),
  reason: z.string().optional().meta({ description: "What is the matter, such as that it does not get on." }),
});

interface Words {
  status?: string;
  progress?: number;
}

/** `agents.heartbeat`: what an agent says of itself. */
export function heartbeatOperations(ctx: PluginContext): Operation<never>[] {
  const latest = createStatusThrottle(ctx.clock, WORDS_EVERY_MS, (agentId, runId, words: Words) => {
    ctx.reports.heartbeat(agentId, runId, words).catch((error: unknown) => {
      // The run is over by now.
      if (isOpenStarryError(error) && ["agent_not_found", "run_is_over"].includes(error.code)) return;
      ctx.log.warn({ agent_id: agentId, err: error }, "an agent's words could not be written");
    });
  });
  return [
    defineOperation({
      name: "agents.heartbeat",
      summary:
        "A sign of life of an agent, with its progress and what it has used; the first makes it ready.",
      scope: "agent:report",
      input: inputSchema,
      output: outputSchema,
      http: { method: "POST", path: "/agents/{agent_id}/heartbeat" },
      async handler({ agent_id, status, progress, usage }, { principal }) {
        const agent = requireOwnAgent(ctx.agents, agent_id, principal);
        const runId = runOf(agent, principal);
        const words: Words = {
          ...(status === undefined ? {} : { status }),
          ...(progress === undefined ? {} : { progress }),
        };
        const later = Object.keys(words).length > 0 && !latest.isTime(agent_id, runId, words);
        const used = usage === undefined ? {} : { usage: merged(agent.usage, usage) };
        await ctx.reports.heartbeat(agent_id, runId, { ...words, ...used }, { later });
        const { state, reason } = ctx.agents.get(agent_id) ?? agent;
        return { agent_id, run_id: runId, state, ...(reason === undefined ? {} : { reason }) };
      },
    }),
  ];
}

/** An agent speaks for the run that its token is of, which may be over. */
function runOf(agent: Agent, principal: Principal): string {
  if (principal.kind === "agent") return principal.runId;
  if (agent.pid !== undefined && agent.run_id !== undefined) return agent.run_id;
  throw new OpenStarryError("agent_not_running", {
    detail: `agent ${agent.agent_id} has no process that could give a sign of life; it is ${agent.state}`,
    hint: `start it with POST /agents/${agent.agent_id}/start`,
  });
}

function merged(before: Usage | undefined, report: { [K in keyof Usage]?: number | undefined }): Usage {
  const known = before ?? { input_tokens: 0, output_tokens: 0, cost_usd: 0 };
  return {
    input_tokens: report.input_tokens ?? known.input_tokens,
    output_tokens: report.output_tokens ?? known.output_tokens,
    cost_usd: report.cost_usd ?? known.cost_usd,
  };
}
