import { z } from "zod";
import {
  type Agent,
  defineOperation,
  formatDuration,
  type Operation,
  type PluginContext,
  type Principal,
  type RunRecord,
} from "../../../core/index.js";
import { shareTail } from "../../kit/tail-share.js";
import { readLines } from "../logs.js";
import { requireAgent } from "../lookup.js";
import type { SampleHistory } from "../sample-history.js";
import { ofAgent } from "../schemas.js";
import { whyTool } from "../tools.js";
import { evidenceSchema } from "./evidence.js";
import { gatherFacts, runsInQuestion } from "./facts.js";
import { hintFor } from "./hints.js";
import { exitInWords } from "./in-words.js";
import { nextFor } from "./next.js";
import { pastEvidence } from "./past-evidence.js";
import { presentEvidence } from "./present-evidence.js";
import { summaryOf } from "./summary.js";
import { usageOf, usageSchema } from "./usage-sparkline.js";

const runSchema = z.object({
  run_id: z.string(),
  status: z.string().meta({ description: "How it ended, in words." }),
  cause: z.string(),
  actor: z.string(),
  reason: z.string(),
  uptime: z.string().optional(),
  ended_at: z.string(),
});

export const whySchema = z
  .object({
    agent_id: z.string(),
    state: z
      .string()
      .meta({ description: "A state of an agent, or quarantined: its record cannot be read." }),
    summary: z.string().meta({ description: "What the state is and how it came about, in one paragraph." }),
    desired: z.enum(["running", "stopped"]).optional().meta({ description: "Absent if quarantined." }),
    next: z.string().meta({ description: "What will happen by itself, and when." }),
    evidence: z.array(evidenceSchema).meta({
      description:
        "What the answer is based on: what happened to the live run and to the last one that ended, oldest first; then the current facts.",
    }),
    curves: z.array(usageSchema).meta({
      description:
        "Resource usage of the live run and of the last one that ended, as far as samples are kept.",
    }),
    last_runs: z.array(runSchema),
    output_tail: z
      .string()
      .optional()
      .meta({ description: "Its last output, at most 4 KiB: of stdout, then of stderr." }),
    hint: z.string().meta({ description: "What to do, if anything." }),
  })
  .meta({ id: "Why" });

const TAIL_LINES = 20;
const TAIL_BYTES = 4_096;

/** Makes the operation `agents.why`. */
export function whyOperations(ctx: PluginContext, history: SampleHistory): Operation<never>[] {
  return [
    defineOperation({
      name: "agents.why",
      summary: "Explains the state of an agent: what happened, what happens next, what to do.",
      scope: "agent:read",
      input: z.strictObject(ofAgent),
      output: whySchema,
      http: { method: "GET", path: "/agents/{agent_id}/why" },
      tools: [whyTool],
      async handler({ agent_id }, { principal }) {
        const problem = principal.kind === "operator" ? ctx.agents.quarantined(agent_id) : undefined;
        if (problem !== undefined) return explainQuarantined(ctx, agent_id, problem);
        return explain(ctx, history, requireAgent(ctx.agents, agent_id, principal), principal);
      },
    }),
  ];
}

async function explain(ctx: PluginContext, history: SampleHistory, agent: Agent, principal: Principal) {
  const facts = await gatherFacts(ctx, agent, principal);
  const { agent_id, state, desired, pid, last_exit } = agent;
  const tail = (pid === undefined ? undefined : await liveTail(ctx, agent)) || last_exit?.output_tail;
  return {
    agent_id,
    state,
    summary: summaryOf(facts),
    desired,
    next: nextFor(facts),
    evidence: [...pastEvidence(facts), ...presentEvidence(facts)],
    curves: usageOf(history.read(agent_id, Number.NEGATIVE_INFINITY), runsInQuestion(agent, facts.runs)),
    last_runs: facts.runs.map(runView),
    output_tail: tail || undefined,
    hint: hintFor(facts),
  };
}

/** Explains an agent whose record cannot be read. */
async function explainQuarantined(ctx: PluginContext, agent_id: string, problem: string) {
  // Its runs may be readable all the same.
  const runs = await ctx.journal.runs(agent_id, 1).catch(() => []);
  return {
    agent_id,
    state: "quarantined",
    summary: `${agent_id} is quarantined: ${problem}. It may be alive; it is left alone, and its ID stays taken.`,
    next: "nothing until it is deleted, or its record is repaired and the daemon restarted",
    evidence: [],
    curves: [],
    last_runs: runs.map(runView),
    hint: `stop and delete it: DELETE /agents/${agent_id}`,
  };
}

function runView({ run_id, exit }: RunRecord) {
  const uptimeMs = Date.parse(exit.ended_at) - Date.parse(exit.started_at ?? "");
  return {
    run_id,
    status: exitInWords(exit),
    cause: exit.cause,
    actor: exit.actor,
    reason: exit.reason,
    uptime: Number.isNaN(uptimeMs) ? undefined : formatDuration(Math.max(0, uptimeMs)),
    ended_at: exit.ended_at,
  };
}

/** Reads the last output of the live run; empty if it cannot be read. */
async function liveTail(ctx: PluginContext, agent: Agent): Promise<string | undefined> {
  const printed = { stdout: "", stderr: "" };
  try {
    for await (const { stream, bytes } of readLines(ctx, agent, { tail: TAIL_LINES })) {
      printed[stream] += `${Buffer.from(bytes).toString("utf8")}\n`;
    }
  } catch (error) {
    ctx.log.debug({ agent_id: agent.agent_id, err: error }, "cannot read its output");
  }
  const [stdout, stderr] = [Buffer.from(printed.stdout), Buffer.from(printed.stderr)];
  const shares = shareTail({ stdout: stdout.length, stderr: stderr.length }, TAIL_BYTES);
  const last = [lastBytes(stdout, shares.stdout), lastBytes(stderr, shares.stderr)];
  return Buffer.concat(last).toString("utf8").trimEnd();
}

function lastBytes(bytes: Buffer, count: number): Buffer {
  return bytes.subarray(bytes.length - count);
}
