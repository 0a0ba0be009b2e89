import { z } from "zod";
import {
  defineOperation,
  type Operation,
  operation,
  type PluginContext,
  type Principal,
  type Scope,
} from "../../core/index.js";

const output = z.object({
  kind: z.enum(["operator", "agent", "internal", "anonymous"]),
  id: z.string().meta({ description: 'As "actor" fields show it.' }),
  agent_id: z.string().optional(),
  run_id: z.string().optional(),
  template_id: z.string().optional(),
  may: z.array(z.string()).meta({ description: "In words." }),
  operations: z.array(z.string()).meta({ description: "The names of what it may ask for." }),
});

type WhoAmI = z.output<typeof output>;

/** Who the token belongs to, and what it may do. */
export function whoamiOperation(ctx: PluginContext): Operation<never> {
  return defineOperation({
    name: "daemon.whoami",
    summary: "Who you are, and what you may do.",
    scope: "any",
    input: z.strictObject({}),
    output,
    http: { method: "GET", path: "/whoami" },
    handler: async (_, { principal }) => describe(principal, ctx),
  });
}

function describe(principal: Principal, ctx: PluginContext): WhoAmI {
  const all = [...ctx.use(operation).values()];
  const { kind, id } = principal;
  if (principal.kind !== "agent") {
    return { kind, id, may: ["everything"], operations: all.map(({ name }) => name).sort() };
  }
  const { agentId, runId } = principal;
  const children = ctx.agents.template(agentId)?.template.children;
  const scopes = new Set<Scope>([
    "public",
    "any",
    "template:read",
    "agent:list",
    "agent:read",
    "agent:report",
    "state:read",
    "state:write",
  ]);
  if (children) scopes.add("agent:start").add("agent:control");
  return {
    kind,
    id,
    agent_id: agentId,
    run_id: runId,
    template_id: ctx.agents.get(agentId)?.template_id,
    may: [
      "see the templates, itself, and the agents below it",
      "send heartbeats and reports for itself",
      'use the state store: its own namespace, "shared", and those of the agents below it',
      children
        ? `start agents from templates, at most ${children.max} at a time and ${children.depth} deep, and stop, restart and remove what it started`
        : 'start no agents: its template has no "children" section',
    ],
    operations: all
      .filter(({ scope }) => scopes.has(scope))
      .map(({ name }) => name)
      .sort(),
  };
}
