import { z } from "zod";
import {
  defineOperation,
  type MessageBus,
  messageBus,
  OpenStarryError,
  type Operation,
  type PluginContext,
} from "../../core/index.js";
import { DAEMON_TOPICS, ownerOf, REPLY_TOPICS } from "../kit/topics.js";
import { waitUntilHealthy } from "../kit/wait-until-healthy.js";
import { createDeliveries } from "./deliveries.js";
import { viewOf } from "./message-view.js";
import { request } from "./request.js";
import {
  ackWait,
  after,
  filter,
  group,
  messageSchema,
  nackDelay,
  payload,
  replyTimeout,
  topic,
} from "./schemas.js";
import { begun, deliveries, isStillAllowed, messages } from "./streams.js";
import { sendTool } from "./tools.js";

const byFilter = "/bus/{filter*}";

const publishInput = z
  .strictObject({
    topic,
    payload,
    keep: z.boolean().default(true).meta({ description: "False: only for those who are there now." }),
    reply_to: topic.optional().meta({ description: "A topic on which an answer is waited for." }),
    wait_for_reply: z.boolean().default(false).meta({ description: "Answer when somebody has replied." }),
    timeout: replyTimeout,
  })
  .refine((it) => !(it.wait_for_reply && it.reply_to), {
    path: ["reply_to"],
    message: "with wait_for_reply the daemon makes up the topic; leave it out",
  });

const subscribeInput = z.strictObject({
  filter,
  after,
  group: group.optional(),
  ack_wait: ackWait,
  max_in_flight: z.int().min(1).max(1_000).default(1).meta({
    description: "In a group: no more than this before one is settled. Default 1.",
  }),
});

const ackInput = z
  .strictObject({
    ack: z.string().max(64).optional().meta({ description: "The token of a message that is done with." }),
    nack: z
      .string()
      .max(64)
      .optional()
      .meta({ description: "The token of one that is to be delivered again." }),
    delay: nackDelay,
  })
  .refine((it) => (it.ack === undefined) !== (it.nack === undefined), {
    path: ["ack"],
    message: 'give one token, as "ack" or as "nack"',
  });

/** `bus.publish`, `bus.subscribe`, `bus.ack`, `bus.forget`. `beforeUse` has its turn before each of them. */
export function busOperations(ctx: PluginContext, beforeUse: () => void): Operation<never>[] {
  const bus = async (signal: AbortSignal): Promise<MessageBus> => {
    const usable = await usableBus(ctx, signal);
    beforeUse();
    return usable;
  };
  const book = createDeliveries(ctx.clock);

  return [
    defineOperation({
      name: "bus.publish",
      summary: "Publishes a message; with wait_for_reply it is answered with the reply.",
      scope: "bus:publish",
      input: publishInput,
      output: z.object({
        topic: z.string(),
        position: z.string().optional(),
        reply: messageSchema.optional(),
      }),
      http: { method: "POST", path: "/bus/{topic*}" },
      tools: [sendTool],
      async handler(input, { principal, signal }) {
        mustNotBeTheDaemons(input.topic);
        mustBeSomebodys(ctx, input.topic);
        const { reply_to } = input;
        // An answer is for the one who waits for it now.
        const keep = input.keep && !isUnder(REPLY_TOPICS, input.topic);
        const bytes = Buffer.from(JSON.stringify(input.payload));
        const message = { topic: input.topic, payload: bytes, from: principal.id };
        if (!input.wait_for_reply) {
          const sent = await (await bus(signal)).publish(
            { ...message, ...(reply_to ? { reply_to } : {}) },
            { keep },
          );
          return { topic: input.topic, ...sent };
        }
        const options = { message, keep, timeoutMs: input.timeout, signal };
        const { reply, ...sent } = await request(await bus(signal), ctx.clock, options);
        return { topic: input.topic, ...sent, reply: viewOf(reply) };
      },
    }),
    defineOperation({
      name: "bus.subscribe",
      summary: "Messages as server-sent events; resumes after the Last-Event-ID, or as a member of a group.",
      scope: "bus:subscribe",
      input: subscribeInput,
      output: messageSchema,
      http: { method: "GET", path: byFilter, contentType: "text/event-stream" },
      async handler({ filter: read, ...input }, { principal, signal, lastEventId }) {
        const from = lastEventId ?? input.after;
        const options = { filter: read, signal, ...(from === undefined ? {} : { after: from }) };
        const isAllowed = isStillAllowed(read, principal, ctx.agents);
        if (input.group === undefined)
          return begun(messages((await bus(signal)).subscribe(options), isAllowed));
        const { group: name, ack_wait: ackWaitMs, max_in_flight: maxInFlight } = input;
        const source = (await bus(signal)).consume({ ...options, group: name, ackWaitMs, maxInFlight });
        return begun(deliveries(source, book.ofStream(principal.id, ackWaitMs), isAllowed));
      },
    }),
    defineOperation({
      name: "bus.ack",
      summary: "Settles a message of a group, or gives it back to be delivered again.",
      scope: "any",
      input: ackInput,
      output: z.object({ settled: z.literal(true) }),
      http: { method: "POST", path: "/bus-ack" },
      async handler({ ack, nack, delay }, { principal }) {
        if (ack !== undefined) await book.ack(ack, principal.id);
        if (nack !== undefined) await book.nack(nack, principal.id, delay);
        return { settled: true as const };
      },
    }),
    defineOperation({
      name: "bus.forget",
      summary: "Forgets a group and where it stood; its members' streams end.",
      scope: "bus:subscribe",
      input: z.strictObject({ filter, group }),
      output: z.object({ filter: z.string(), group: z.string(), forgotten: z.literal(true) }),
      http: { method: "DELETE", path: byFilter },
      async handler(input, { signal }) {
        await (await bus(signal)).removeGroup(input);
        return { ...input, forgotten: true as const };
      },
    }),
  ];
}

/** Rejects with `slot_empty`, or with `bus_unavailable` when it does not come up. */
async function usableBus(ctx: PluginContext, signal: AbortSignal): Promise<MessageBus> {
  if (!ctx.has(messageBus)) {
    throw new OpenStarryError("slot_empty", {
      detail: "this daemon has no message bus",
      hint: "add one to the config's plugins, such as bus-mqtt",
    });
  }
  return waitUntilHealthy(ctx.use(messageBus), {
    clock: ctx.clock,
    signal,
    code: "bus_unavailable",
    what: "the message bus",
  });
}

function mustNotBeTheDaemons(wanted: string): void {
  if (!isUnder(DAEMON_TOPICS, wanted)) return;
  throw new OpenStarryError("forbidden", {
    detail: `nobody publishes to ${wanted}: ${DAEMON_TOPICS}/… is where the daemon itself speaks`,
    hint: 'publish to "shared/…", or to an agent\'s inbox, "agents/ID/inbox"',
  });
}

/** What is sent to nobody would be lost without a word: an agent's topics begin empty. */
function mustBeSomebodys(ctx: PluginContext, wanted: string): void {
  const owner = ownerOf(wanted);
  if (owner === undefined || ctx.agents.get(owner)) return;
  throw new OpenStarryError("agent_not_found", {
    detail: `nobody reads ${wanted}: there is no agent ${owner}`,
    hint: "GET /agents lists those that there are",
  });
}

function isUnder(first: string, name: string): boolean {
  return name.split("/")[0] === first;
}
