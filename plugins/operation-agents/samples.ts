import { z } from "zod";
import { defineOperation, type Operation, type PluginContext, rfc3339 } from "../../core/index.js";
import { requireAgent } from "./lookup.js";
import { moment, parseMoment } from "./moment.js";
import { type SampleHistory, thinOut } from "./sample-history.js";
import { ofAgent } from "./schemas.js";

const sampleSchema = z
  .object({
    sampled_at: z.string(),
    run_id: z.string(),
    cpu_percent: z.number().meta({ description: "Of one core, over the whole tree; the mean." }),
    memory_bytes: z.int().meta({ description: "Over the whole tree; the greatest." }),
    processes: z.int().meta({ description: "The greatest number." }),
  })
  .meta({ id: "Sample" });

/** `agents.samples`. */
export function sampleOperations(ctx: PluginContext, history: SampleHistory): Operation<never>[] {
  return [
    defineOperation({
      name: "agents.samples",
      summary: "What an agent has used lately, over the ends of its runs; oldest first.",
      scope: "agent:read",
      input: z.strictObject({
        ...ofAgent,
        since: moment("Nothing measured before."),
        points: z.int().min(1).max(10_000).default(300).meta({
          description: "Where there are more, some that stand next to each other are told as one.",
        }),
      }),
      output: z.object({ items: z.array(sampleSchema) }),
      http: { method: "GET", path: "/agents/{agent_id}/samples" },
      async handler({ agent_id, since, points }, { principal }) {
        requireAgent(ctx.agents, agent_id, principal);
        const sinceMs = since === undefined ? undefined : parseMoment(since, ctx.clock.now());
        const found = history.read(agent_id, sinceMs ?? Number.NEGATIVE_INFINITY);
        return {
          items: thinOut(found, points).map((it) => ({
            sampled_at: rfc3339(it.atMs),
            run_id: it.runId,
            cpu_percent: it.cpuPercent,
            memory_bytes: it.memoryBytes,
            processes: it.processes,
          })),
        };
      },
    }),
  ];
}
