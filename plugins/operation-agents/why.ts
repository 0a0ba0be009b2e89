import { z } from "zod";
import {
  type Agent,
  defineOperation,
  formatDuration,
  type Operation,
  type PluginContext,
  type RunRecord,
} from "../../core/index.js";
import { exitInWords } from "./exit-words.js";
import { readLines } from "./logs.js";
import { requireAgent } from "./lookup.js";
import { ofAgent } from "./schemas.js";
import { hintFor, nextFor, summaryOf } from "./why-words.js";

const whySchema = z
  .object({
    agent_id: z.string(),
    state: z.string(),
    summary: z.string().meta({ description: "What is the case and how it came about, in one paragraph." }),
    desired: z.enum(["running", "stopped"]),
    next: z.string().meta({ description: "What will happen by itself, and when." }),
    last_runs: z.array(
      z.object({
        run_id: z.string(),
        status: z.string().meta({ description: "How it ended, in words." }),
        cause: z.string(),
        actor: z.string(),
        reason: z.string(),
        uptime: z.string().optional(),
        ended_at: z.string(),
      }),
    ),
    output_tail: z.string().optional().meta({ description: "The last lines it printed, at most 4 KiB." }),
    hint: z.string().meta({ description: "What to do, if anything." }),
  })
  .meta({ id: "Why" });

const RUNS_SHOWN = 5;
const TAIL_LINES = 20;
const TAIL_BYTES = 4_096;

/** `agents.why`. */
export function whyOperations(ctx: PluginContext): Operation<never>[] {
  return [
    defineOperation({
      name: "agents.why",
      summary: "Why an agent is in the state that it is in: what happened, what comes next, what to do.",
      scope: "agent:read",
      input: z.strictObject(ofAgent),
      output: whySchema,
      http: { method: "GET", path: "/agents/{agent_id}/why" },
      async handler({ agent_id }, { principal }) {
        const agent = requireAgent(ctx.agents, agent_id, principal);
        const runs = await ctx.agents.runs(agent_id, RUNS_SHOWN);
        const nowMs = ctx.clock.now();
        const tail = agent.pid === undefined ? agent.last_exit?.output_tail : await liveTail(ctx, agent);
        return {
          agent_id,
          state: agent.state,
          summary: summaryOf(agent, runs, nowMs),
          desired: agent.desired,
          next: nextFor(agent, ctx.agents.template(agent_id)?.template, nowMs),
          last_runs: runs.map(runView),
          ...(tail ? { output_tail: tail } : {}),
          hint: hintFor(agent, runs),
        };
      },
    }),
  ];
}

function runView({ run_id, exit }: RunRecord) {
  const uptimeMs = Date.parse(exit.ended_at) - Date.parse(exit.started_at ?? "");
  return {
    run_id,
    status: exitInWords(exit),
    cause: exit.cause,
    actor: exit.actor,
    reason: exit.reason,
    ...(Number.isNaN(uptimeMs) ? {} : { uptime: formatDuration(Math.max(0, uptimeMs)) }),
    ended_at: exit.ended_at,
  };
}

/** What the living run printed last. That there is none to be had is no reason not to answer. */
async function liveTail(ctx: PluginContext, agent: Agent): Promise<string | undefined> {
  const lines: string[] = [];
  try {
    for await (const line of readLines(ctx, agent, { tail: TAIL_LINES })) {
      lines.push(Buffer.from(line.bytes).toString("utf8"));
    }
  } catch (error) {
    ctx.log.debug({ agent_id: agent.agent_id, err: error }, "its output could not be read");
  }
  const text = Buffer.from(lines.join("\n"));
  return text.subarray(Math.max(0, text.length - TAIL_BYTES)).toString("utf8");
}
