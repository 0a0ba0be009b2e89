import { z } from "zod";
import {
  type Agent,
  type CreateAgent,
  defineOperation,
  envSchema,
  type Intent,
  idSchema,
  isOpenStarryError,
  labelsSchema,
  OpenStarryError,
  type Operation,
  type OperationCall,
  type PluginContext,
  type Principal,
} from "../../core/index.js";
import { launchError } from "./answers.js";
import { checkEnv, needsTemplate } from "./env-rules.js";
import { createIdempotency } from "./idempotency.js";
import { COMMAND_TEMPLATE, inlineTemplate } from "./inline-template.js";
import { isVisible, requireAgent } from "./lookup.js";
import { agentSchema, waitTimeout } from "./schemas.js";
import { startTool } from "./tools.js";
import { waitAtMost } from "./wait.js";

const osString = (max: number) =>
  z
    .string()
    .max(max)
    .refine((text) => !text.includes("\0"), "it holds a NUL character");

const inputSchema = z.strictObject({
  agent_id: idSchema.optional().meta({ description: "Absent: one is made from the template's name." }),
  template_id: idSchema.optional().meta({ description: "What to start. Required without command." }),
  command: z.array(osString(131_071)).min(1).max(1_001).optional().meta({
    description: "For the operator, instead of template_id: a program and its arguments. No shell.",
  }),
  cwd: osString(4_096).min(1).optional().meta({ description: "With command: where it runs. Absolute." }),
  params: z.record(z.string(), z.unknown()).optional().meta({ description: "As the template declares." }),
  labels: labelsSchema.optional(),
  env: envSchema.optional().meta({ description: "For the operator: variables of this agent alone." }),
  start: z.boolean().default(true).meta({ description: "For the operator: false makes the record only." }),
  wait_for: z.enum(["ready"]).optional().meta({
    description: "Answer once it is ready, or will not become so, or the timeout is over.",
  }),
  timeout: waitTimeout,
  dry_run: z.boolean().default(false).meta({ description: "Check everything, create nothing." }),
});
type Input = z.output<typeof inputSchema>;

/** How long a new process may take to exist before the answer is "it is still pending". */
const LAUNCH_WAIT_MS = 30_000;

/** `agents.create`: `POST /agents`. */
export function createOperations(ctx: PluginContext): Operation<never>[] {
  const idempotency = createIdempotency(ctx, ctx.clock, (error) =>
    ctx.log.warn({ err: error }, "the answer to a request with an Idempotency-Key could not be kept"),
  );

  async function create(input: Input, call: OperationCall): Promise<Agent | (Agent & { dry_run: true })> {
    const { idempotencyKey: key, principal } = call;
    const spec = await specOf(ctx, input, principal);
    if (input.dry_run)
      return {
        ...(await hidingStrangers(ctx, principal, spec, ctx.agents.check(spec, intentOf(principal)))),
        dry_run: true,
      };
    const { wait_for, timeout, ...body } = input;
    const created =
      key === undefined
        ? await launch(ctx, spec, principal)
        : await idempotency.once(
            { principalId: principal.id, key, body },
            (memo) => launch(ctx, { ...spec, memo }, principal),
            (agentId) => launched(ctx, requireAgent(ctx.agents, agentId, principal).agent_id),
          );
    if (wait_for === undefined || !ctx.agents.get(created.agent_id)) return created;
    return waitAtMost(ctx, created.agent_id, wait_for, { timeoutMs: timeout, signal: call.signal });
  }

  return [
    defineOperation({
      name: "agents.create",
      summary:
        "Starts an agent from a template. 201 once its process exists, 202 while it has to wait; an Idempotency-Key makes it safe to repeat.",
      scope: "agent:start",
      input: inputSchema,
      output: agentSchema,
      http: { method: "POST", path: "/agents", status: statusOfCreated },
      tools: [startTool],
      handler: create,
    }),
  ];
}

function statusOfCreated(agent: Agent & { dry_run?: boolean }): number {
  if (agent.dry_run) return 200;
  return agent.state === "pending" || agent.state === "backoff" ? 202 : 201;
}

/** Checks what only this operation knows the rules of, and puts the kernel's words together. */
async function specOf(ctx: PluginContext, input: Input, principal: Principal): Promise<CreateAgent> {
  const { agent_id, template_id, command, cwd, params, labels, env = {}, start } = input;
  if ((template_id === undefined) === (command === undefined)) {
    throw new OpenStarryError("input_invalid", {
      detail: `the input of agents.create: ${command ? "it has both template_id and command" : "template_id is missing"}`,
      hint: "give the template_id of one of GET /templates",
    });
  }
  const inline = command && inlineTemplate(command, cwd);
  refuseMisplaced(input);
  if (principal.kind === "agent") {
    refuseOperatorFields(input);
    refuseRecordOnly(input);
  }
  if (needsTemplate(env)) {
    checkEnv(env, template_id ? (await ctx.templates.find(template_id)).template : undefined);
  }
  return {
    template_id: template_id ?? COMMAND_TEMPLATE,
    ...(agent_id === undefined ? {} : { agent_id }),
    ...(inline ? { template: inline.template } : {}),
    params: inline?.params ?? params ?? {},
    ...(labels === undefined ? {} : { labels }),
    ...(Object.keys(env).length === 0 ? {} : { env }),
    ...(principal.kind === "agent" ? { parent_id: principal.agentId } : {}),
    start,
  };
}

function refuseMisplaced({ command, cwd, params }: Input): void {
  const problem = command && params ? "params" : !command && cwd !== undefined ? "cwd" : undefined;
  if (problem === undefined) return;
  throw new OpenStarryError("input_invalid", {
    detail: `the input of agents.create: ${problem} goes ${command ? "with template_id" : "with command"} only`,
    hint: `leave ${problem} out`,
  });
}

function refuseOperatorFields(input: Input): void {
  const field = (["command", "cwd", "env"] as const).find((name) => input[name] !== undefined);
  if (field === undefined) return;
  throw new OpenStarryError("forbidden", {
    detail: `"${field}" of agents.create is the operator's alone`,
    hint: `leave ${field} out, and hand values over in "params"`,
  });
}

/** A record that was never started counts as ended, and so not as a child of the template's `children.max`. */
function refuseRecordOnly({ start }: Input): void {
  if (start) return;
  throw new OpenStarryError("forbidden", {
    detail: `"start": false of agents.create is the operator's alone`,
    hint: "leave start out, and create the agent when it is to run; dry_run checks without creating",
  });
}

/** Rejects as `made` does, but tells an agent no more of one that it may not see than that the id is taken. */
async function hidingStrangers(
  { agents }: PluginContext,
  principal: Principal,
  { agent_id }: CreateAgent,
  made: Promise<Agent>,
): Promise<Agent> {
  try {
    return await made;
  } catch (error) {
    if (principal.kind !== "agent" || agent_id === undefined) throw error;
    if (!isOpenStarryError(error) || error.code !== "agent_exists") throw error;
    const existing = agents.get(agent_id);
    if (existing && isVisible(existing, principal, agents)) throw error;
    throw new OpenStarryError("agent_exists", {
      detail: `there is an agent "${agent_id}" already`,
      hint: "choose another agent_id",
    });
  }
}

function intentOf({ id }: Principal): Intent {
  return { actor: id, reason: `started by ${id}` };
}

async function launch(ctx: PluginContext, spec: CreateAgent, principal: Principal) {
  const made = ctx.control.create(spec, intentOf(principal));
  const { agent_id } = await hidingStrangers(ctx, principal, spec, made);
  return launched(ctx, agent_id);
}

/** The agent once its process exists, or it has to wait, or could not be started. */
async function launched(ctx: PluginContext, agentId: string): Promise<Agent> {
  const agent = await waitAtMost(ctx, agentId, "launched", { timeoutMs: LAUNCH_WAIT_MS });
  const error = launchError(agent);
  if (error) throw error;
  return agent;
}
