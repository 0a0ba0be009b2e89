import { z } from "zod";
import {
  defineOperation,
  EVENT_TYPES,
  idSchema,
  OpenStarryError,
  type Operation,
  type OperationCall,
  type PluginContext,
} from "../../core/index.js";
import { eventSource } from "./event-source.js";
import { requireAgent } from "./lookup.js";
import { eventSchema, ofAgent } from "./schemas.js";
import { eventFilterFor, visibleFrom } from "./subtree.js";

const streamInput = z.strictObject({
  agent_id: idSchema.optional().meta({ description: "Only events of this agent." }),
  type: z.enum(EVENT_TYPES).optional().meta({ description: "Only events of this type." }),
});

/** `agents.events` (a page) and `events.stream` (server-sent events). */
export function eventOperations(ctx: PluginContext): Operation<never>[] {
  return [
    defineOperation({
      name: "agents.events",
      summary: "What happened to one agent, oldest first; gap: older events were pruned.",
      scope: "agent:read",
      input: z.strictObject({
        ...ofAgent,
        after: z.int().min(0).default(0).meta({ description: "The next_cursor of the page before." }),
        limit: z.int().min(1).max(1_000).default(100),
      }),
      output: z.object({ items: z.array(eventSchema), gap: z.boolean(), next_cursor: z.string().optional() }),
      http: { method: "GET", path: "/agents/{agent_id}/events" },
      async handler({ agent_id, after, limit }, { principal }) {
        requireAgent(ctx.agents, agent_id, principal);
        const { events, gap } = await ctx.journal.events({
          agentId: agent_id,
          after: Math.max(after, (await visibleFrom(agent_id, principal, ctx)) - 1),
          limit,
        });
        const last = events.length === limit ? events.at(-1) : undefined;
        return { items: events, gap, ...(last ? { next_cursor: String(last.id) } : {}) };
      },
    }),
    defineOperation({
      name: "events.stream",
      summary: "Everything that happens, as server-sent events: from now on, or after the Last-Event-ID.",
      scope: "agent:list",
      input: streamInput,
      output: eventSchema,
      http: { method: "GET", path: "/events", contentType: "text/event-stream" },
      async handler({ agent_id, type }, call) {
        const mayKnow = await eventFilterFor(call.principal, ctx);
        return eventSource({
          journal: ctx.journal,
          onEvent: ctx.events.onAny,
          after: startOf(ctx, call),
          signal: call.signal,
          ...(agent_id === undefined ? {} : { agentId: agent_id }),
          wanted: (event) =>
            (agent_id === undefined || event.agent_id === agent_id) &&
            (type === undefined || event.type === type) &&
            mayKnow(event),
        });
      },
    }),
  ];
}

/** Where the stream begins. An id that was never given out is refused: resuming there would lose events. */
function startOf(ctx: PluginContext, { lastEventId }: OperationCall): number {
  const newest = ctx.journal.lastEventId();
  if (lastEventId === undefined) return newest;
  const after = /^\d{1,15}$/.test(lastEventId) ? Number(lastEventId) : Number.NaN;
  if (after <= newest) return after;
  throw new OpenStarryError("input_invalid", {
    detail: `Last-Event-ID is ${JSON.stringify(lastEventId.slice(0, 40))}; the newest event is ${newest}`,
    hint: "send the id of the last event that was received, or leave the header out to begin now",
  });
}
