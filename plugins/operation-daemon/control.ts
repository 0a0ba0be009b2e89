import { z } from "zod";
import { defineOperation, type Operation, type PluginContext } from "../../core/index.js";

const nothing = z.strictObject({});

/** What ends, replaces or changes the daemon as a whole. */
export function controlOperations(ctx: PluginContext): Operation<never>[] {
  return [
    defineOperation({
      name: "daemon.stop",
      summary: "Stops the daemon. The answer comes when the stop has begun.",
      scope: "operator",
      input: z.strictObject({
        agents: z.enum(["stop", "keep"]).optional().meta({
          description: "Whether the agents end with it or run on; absent: as the config says.",
        }),
      }),
      output: z.object({
        state: z.literal("stopping"),
        pid: z.int().meta({ description: "The process that stops: after a hand-over, the successor." }),
      }),
      http: { method: "POST", path: "/daemon/stop", status: () => 202 },
      async handler({ agents }, { principal }) {
        await ctx.daemon.control.stop({ ...(agents ? { agents } : {}), actor: principal.id });
        return { state: "stopping", pid: process.pid };
      },
    }),
    defineOperation({
      name: "daemon.restart",
      summary: "Replaces the daemon by a new one while agents run on.",
      scope: "operator",
      input: nothing,
      output: z.object({ state: z.literal("restarting") }),
      http: { method: "POST", path: "/daemon/restart", status: () => 202 },
      async handler(_, { principal }) {
        await ctx.daemon.control.restart({ actor: principal.id });
        return { state: "restarting" };
      },
    }),
    defineOperation({
      name: "daemon.reload",
      summary: "Reads the config again, and takes over what can be changed while running.",
      scope: "operator",
      input: nothing,
      output: z.object({
        applied: z.array(z.string()),
        needs_restart: z.array(z.string()).meta({ description: "What waits for a restart, in words." }),
      }),
      http: { method: "POST", path: "/daemon/reload" },
      handler: (_, { principal }) => ctx.daemon.control.reload({ actor: principal.id }),
    }),
  ];
}
