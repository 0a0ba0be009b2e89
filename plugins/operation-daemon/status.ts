import { z } from "zod";
import {
  AGENT_STATES,
  type AgentLookup,
  defineOperation,
  isService,
  type Operation,
  type PluginContext,
} from "../../core/index.js";

const nothing = z.strictObject({});

const endpointSchema = z
  .object({
    name: z.string().meta({ description: 'What "requires" in templates calls it.' }),
    protocol: z.string(),
    health: z.enum(["healthy", "unhealthy"]),
    problem: z.string().optional(),
  })
  .meta({ id: "Endpoint" });

const pluginSchema = z
  .object({
    name: z.string(),
    version: z.string().optional(),
    origin: z.enum(["default", "config"]),
    state: z.enum(["loaded", "started", "degraded", "stopped"]),
    problem: z.string().optional(),
  })
  .meta({ id: "Plugin" });

const daemonSchema = z
  .object({
    version: z.string(),
    pid: z.int(),
    started_at: z.string(),
    state: z.enum(["starting", "ready", "stopping"]),
    last_event_id: z.int().optional().meta({ description: "Streams resume after it." }),
    problems: z.array(z.string()),
    agents: z.record(z.string(), z.int()).meta({ description: "How many there are in each state." }),
    endpoints: z.array(endpointSchema),
  })
  .meta({ id: "Daemon" });

/** How the daemon is: for probes, for everybody with a token, and for the operator. */
export function statusOperations(ctx: PluginContext): Operation<never>[] {
  return [
    defineOperation({
      name: "daemon.health",
      summary: "Whether the daemon answers at all.",
      scope: "public",
      input: nothing,
      output: z.object({ status: z.literal("ok") }),
      http: { method: "GET", path: "/healthz" },
      handler: async () => ({ status: "ok" }),
    }),
    defineOperation({
      name: "daemon.ready",
      summary: "Whether the daemon has started everything; 503 while it has not, or is stopping.",
      scope: "public",
      input: nothing,
      output: z.object({ status: z.enum(["starting", "ready", "stopping"]) }),
      http: {
        method: "GET",
        path: "/readyz",
        status: (output: { status: string }) => (output.status === "ready" ? 200 : 503),
      },
      handler: async () => ({ status: ctx.daemon.status().state }),
    }),
    defineOperation({
      name: "daemon.version",
      summary: "The daemon's version.",
      scope: "any",
      input: nothing,
      output: z.object({ version: z.string() }),
      http: { method: "GET", path: "/version" },
      handler: async () => ({ version: ctx.daemon.status().version }),
    }),
    defineOperation({
      name: "daemon.status",
      summary: "What the daemon does, what is wrong with it, and what it runs.",
      scope: "operator",
      input: nothing,
      output: daemonSchema,
      http: { method: "GET", path: "/daemon" },
      handler: async () => ({
        ...ctx.daemon.status(),
        agents: countByState(ctx.agents),
        endpoints: endpoints(ctx),
      }),
    }),
    defineOperation({
      name: "plugins.list",
      summary: "The plugins, and what is wrong with those that are degraded.",
      scope: "any",
      input: nothing,
      output: z.object({ items: z.array(pluginSchema) }),
      http: { method: "GET", path: "/plugins" },
      handler: async () => ({ items: plugins(ctx) }),
    }),
    defineOperation({
      name: "infrastructure.list",
      summary: "What is there for agents to use, and whether it works.",
      scope: "any",
      input: nothing,
      output: z.object({ items: z.array(endpointSchema) }),
      http: { method: "GET", path: "/infrastructure" },
      handler: async () => ({ items: endpoints(ctx) }),
    }),
  ];
}

/** Every state is there, with 0 where there is none. Services are no agents. */
export function countByState(agents: Pick<AgentLookup, "list">): Record<string, number> {
  const counts = Object.fromEntries(AGENT_STATES.map((state) => [state, 0]));
  for (const agent of agents.list())
    if (!isService(agent)) counts[agent.state] = (counts[agent.state] ?? 0) + 1;
  return counts;
}

/** Without their addresses, which may hold credentials. */
function endpoints(ctx: PluginContext): z.output<typeof endpointSchema>[] {
  return ctx.services.endpoints().map((endpoint) => {
    const { name, protocol } = endpoint;
    const problem = endpoint.health();
    if (problem === undefined) return { name, protocol, health: "healthy" };
    return { name, protocol, health: "unhealthy", problem: withoutCredentials(problem) };
  });
}

function plugins(ctx: PluginContext): z.output<typeof pluginSchema>[] {
  return ctx.daemon
    .plugins()
    .map(({ problem, ...plugin }) =>
      problem === undefined ? plugin : { ...plugin, problem: withoutCredentials(problem) },
    );
}

/** What a library says about a failed connection often quotes its address, password and all. */
function withoutCredentials(text: string): string {
  return text.replaceAll(/\/\/[^\s/]*@/g, "//***@");
}
