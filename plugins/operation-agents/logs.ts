import { z } from "zod";
import {
  type Agent,
  defineOperation,
  type LogLine,
  type LogQuery,
  OpenStarryError,
  type Operation,
  type OperationCall,
  type PluginContext,
  type StreamItem,
  spawner,
} from "../../core/index.js";
import { requireAgent } from "./lookup.js";
import { moment, parseMoment } from "./moment.js";
import { ofAgent } from "./schemas.js";
import { logsTool } from "./tools.js";

const DEFAULT_LINES = 100;
const MOST_LINES = 10_000;

const inputSchema = z.strictObject({
  ...ofAgent,
  stream: z.enum(["stdout", "stderr"]).optional().meta({ description: "Absent: both." }),
  tail: z.int().min(0).max(MOST_LINES).optional().meta({
    description:
      "How many lines: the last ones, or with cursor the next ones. Default 100; with since all that fit, from there on.",
  }),
  previous: z
    .boolean()
    .default(false)
    .meta({ description: "Of the run before the newest one; with cursor, of the cursor's alone." }),
  since: moment("Nothing printed before, of whichever run. May answer a little more."),
  until: moment("Nothing printed later. May answer a little more."),
  cursor: z.string().max(200).optional().meta({
    description: "Go on after the line that had this cursor: a line's, or next_cursor.",
  }),
  follow: z.boolean().default(false).meta({
    description: "Answer as server-sent events, and go on with what is printed later.",
  }),
  encoding: z.enum(["utf8", "base64"]).default("utf8").meta({
    description: "utf8: text, with a mark in place of bytes that are none. base64: the very bytes.",
  }),
});
type Input = z.output<typeof inputSchema>;

const lineSchema = z.object({
  run_id: z.string(),
  stream: z.enum(["stdout", "stderr"]),
  text: z.string().optional(),
  base64: z.string().optional(),
  partial: z.boolean().optional().meta({
    description: "True: no line end so far. What this stream of the run prints next goes on with it.",
  }),
  gap: z.enum(["pruned", "truncated"]).optional().meta({
    description: "What was before it is gone: beyond logs.keep, or the agent emptied its own file.",
  }),
  cursor: z.string(),
});
type ShownLine = z.output<typeof lineSchema>;

/** An answer holds no more bytes of output than this, and at least one line. */
const MAX_ANSWER_BYTES = 4 * 2 ** 20;

/** `agents.logs`. */
export function logOperations(ctx: PluginContext): Operation<never>[] {
  return [
    defineOperation({
      name: "agents.logs",
      summary: "What the agent printed: the last lines, those after a cursor, or all that comes from now on.",
      scope: "agent:read",
      input: inputSchema,
      output: z.object({ items: z.array(lineSchema), next_cursor: z.string().optional() }),
      http: { method: "GET", path: "/agents/{agent_id}/logs" },
      tools: [logsTool],
      async handler(input, call) {
        const agent = requireAgent(ctx.agents, input.agent_id, call.principal);
        return input.follow ? follow(ctx, agent, input, call) : page(ctx, agent, input);
      },
    }),
  ];
}

/** The output of an agent, from whoever runs it. */
export function readLines(ctx: PluginContext, agent: Agent, query: LogQuery): AsyncIterable<LogLine> {
  const lines = ctx.use(spawner).get(agent.spawner)?.logs?.(agent.agent_id, query);
  if (lines) return lines;
  throw new OpenStarryError("slot_empty", {
    detail: `spawner "${agent.spawner}" keeps no output of its agents`,
    hint: "look where that spawner's own tools keep it",
  });
}

/** The newest lines that fit; after a cursor, and since a time, the oldest that do. */
async function page(ctx: PluginContext, agent: Agent, input: Input) {
  const { cursor, encoding } = input;
  const query = queryOf(input, ctx.clock.now());
  const fromThere = query.tail === undefined;
  const most = input.tail ?? (cursor === undefined ? MOST_LINES : DEFAULT_LINES);
  const items: { shown: ShownLine; bytes: number }[] = [];
  let total = 0;
  for await (const line of readLines(ctx, agent, query)) {
    if (fromThere && (items.length >= most || total >= MAX_ANSWER_BYTES)) break;
    items.push({ shown: show(line, encoding), bytes: line.bytes.length });
    total += line.bytes.length;
    while (!fromThere && total > MAX_ANSWER_BYTES && items.length > 1) {
      total -= items.shift()?.bytes ?? 0;
    }
  }
  const next = items.at(-1)?.shown.cursor ?? cursor;
  return { items: items.map(({ shown }) => shown), ...(next === undefined ? {} : { next_cursor: next }) };
}

function queryOf({ stream, tail, previous, cursor, ...input }: Input, nowMs: number): LogQuery {
  const since = input.since === undefined ? undefined : parseMoment(input.since, nowMs);
  const until = input.until === undefined ? undefined : parseMoment(input.until, nowMs);
  const lines = tail ?? (since === undefined ? DEFAULT_LINES : undefined);
  const start = {
    previous,
    ...(lines === undefined ? {} : { tail: lines }),
    ...(since === undefined ? {} : { since }),
  };
  return {
    ...(stream === undefined ? {} : { stream }),
    ...(until === undefined ? {} : { until }),
    ...(cursor === undefined ? start : { cursor, ...(previous ? { previous } : {}) }),
  };
}

/** Ends with the caller, or when the agent is deleted. */
function follow(ctx: PluginContext, agent: Agent, input: Input, call: OperationCall) {
  if (input.until !== undefined) {
    throw new OpenStarryError("input_invalid", {
      detail: "until: what is followed has no end",
      hint: "leave out until or follow",
    });
  }
  const cursor = input.cursor ?? call.lastEventId;
  return (async function* (): AsyncGenerator<StreamItem> {
    const deleted = new AbortController();
    const stopListening = ctx.events.on("agent.deleted", ({ agent_id }) => {
      if (agent_id === agent.agent_id) deleted.abort();
    });
    try {
      const signal = AbortSignal.any([call.signal, deleted.signal]);
      // Followed is what comes next, also after a run that is over.
      const goOn = cursor === undefined ? input : { ...input, cursor, previous: false };
      const start = queryOf(goOn, ctx.clock.now());
      const query = { ...start, follow: true, signal };
      for await (const line of readLines(ctx, agent, query)) {
        yield { id: line.cursor, event: "line", data: show(line, input.encoding) };
      }
    } finally {
      stopListening();
    }
  })();
}

function show({ bytes, ...line }: LogLine, encoding: Input["encoding"]): ShownLine {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const content =
    encoding === "base64" ? { base64: buffer.toString("base64") } : { text: buffer.toString("utf8") };
  return { ...line, ...content };
}
