import { randomUUID } from "node:crypto";
import { isOpenStarryError, OpenStarryError } from "../../../core/contracts/errors.js";
import { parseDuration } from "../../../core/lib/units.js";
import type { Client } from "../client/client.js";
import type { Agent, AgentQuery, CreateInput, LogLine, TemplateSummary } from "../client/wire.js";
import type { ToolName } from "./definitions.js";
import { isOutcomeUnknown } from "./hints.js";
import { MOST_NESTED, nestsDeeperThan } from "./nesting.js";
import { isEnded, summary } from "./summary.js";
import { inToolWords } from "./tool-words.js";

type Input = Readonly<Record<string, unknown>>;

/** What a tool found, before it is cut to size. */
export interface Answer {
  data: Record<string, unknown>;
  /** Which end of lists matters more. Default `first`. */
  keep?: "first" | "last";
  howToGetMore?: string;
}

type Handler = (input: Input, signal: AbortSignal | undefined) => Promise<Answer>;

const DEFAULT_WAIT_MS = 45_000;
const LONGEST_WAIT_MS = 3_600_000;
const LONGEST_REPLY_WAIT_MS = 600_000;
const DEFAULT_LIST = 50;
const DEFAULT_TAIL = 40;
/** Starts whose outcome is unknown, of which so many are remembered. */
const MOST_OPEN_STARTS = 100;

/** What is said of an agent that was there a moment ago: not even that, to one who does not own it. */
const REMOVED: readonly string[] = ["agent_not_found", "forbidden"];

/** What each tool does. Every handler may throw what the client throws. */
export function createHandlers(client: () => Client): Record<ToolName, Handler> {
  const agents = () => client().agents;
  const keys = startKeys();

  return {
    "agent:templates": async (input, signal) => {
      const wanted = text(input, "template_id");
      const { items } = await client().templates.list(control(signal));
      const found = items.filter((it) => wanted === undefined || it.template_id === wanted);
      if (wanted !== undefined && found.length === 0) {
        throw new OpenStarryError("template_not_found", { detail: `there is no template "${wanted}"` });
      }
      return {
        data: { templates: found.map((it) => templateView(it, input)) },
        howToGetMore: "Ask for one with template_id, or with a larger max_bytes.",
      };
    },
    "agent:start": async (input, signal) => {
      const { wait_until: until, ...body } = input;
      const spec = body as unknown as CreateInput;
      const agent = await keys.use(spec, (idempotencyKey) =>
        agents().create(spec, {
          idempotencyKey,
          ...(until === "ready" ? { waitFor: "ready" as const } : {}),
          ...control(signal),
        }),
      );
      const id = JSON.stringify(agent.agent_id);
      return { data: { ...summary(agent), next: `agent_wait with agent_ids [${id}], then agent_result` } };
    },
    "agent:wait": (input, signal) => waitForAll(client(), input, signal),
    "agent:result": async (input, signal) => {
      const { result, run_id, exit } = await agents().result(agentId(input), control(signal));
      return { data: { agent_id: agentId(input), run_id, success: exit.success, result: parsed(result) } };
    },
    "agent:status": async (input, signal) => ({
      data: view(await agents().get(agentId(input), control(signal)), input),
    }),
    "agent:list": async (input, signal) => {
      const { verbose: _v, max_bytes: _m, ...query } = input;
      const page = await agents().list({ limit: DEFAULT_LIST, ...(query as AgentQuery) }, control(signal));
      return {
        data: {
          agents: page.items.map((agent) => view(agent, input)),
          ...(page.next_cursor === undefined ? {} : { next_cursor: page.next_cursor }),
        },
        howToGetMore: "Narrow it down with state, template_id or label, or ask with a larger max_bytes.",
      };
    },
    "agent:logs": async (input, signal) => {
      const { verbose: _v, max_bytes: _m, agent_id: _id, ...query } = input;
      const page = await agents().logs(agentId(input), { tail: DEFAULT_TAIL, ...query }, control(signal));
      return {
        data: { lines: input["verbose"] === true ? page.items : page.items.map(lineText) },
        keep: "last",
        howToGetMore: "The newest lines are shown. Ask with a larger max_bytes for more of them.",
      };
    },
    "agent:why": async (input, signal) => {
      const why = await agents().why(agentId(input), control(signal));
      return { data: { ...why, next: inToolWords(why.next), hint: inToolWords(why.hint) } };
    },
    "agent:send": (input, signal) => sendTo(client(), input, signal),
    "agent:restart": async (input, signal) => ({
      data: summary(await agents().restart(agentId(input), control(signal))),
    }),
    "agent:stop": async (input, signal) => {
      const graceMs = parseDuration(text(input, "grace") ?? "");
      const options = { ...(graceMs === undefined ? {} : { graceMs }), ...control(signal) };
      if (input["remove"] !== true) return { data: summary(await agents().stop(agentId(input), options)) };
      return { data: { removed: true, ...summary(await agents().remove(agentId(input), options)) } };
    },
  };
}

/**
 * A start whose answer got lost may have been carried out. The next one with the very same arguments
 * takes the same key, so that it finds the agent of the first instead of starting another; once an
 * answer came, the same arguments mean a new start.
 */
function startKeys() {
  const open = new Map<string, string>();
  return {
    async use<T>(spec: unknown, start: (key: string) => Promise<T>): Promise<T> {
      const name = canonical(spec);
      const key = open.get(name) ?? randomUUID();
      open.delete(name);
      try {
        return await start(key);
      } catch (error) {
        if (isOutcomeUnknown(error)) open.set(name, key);
        const [oldest] = open.keys();
        if (open.size > MOST_OPEN_STARTS && oldest !== undefined) open.delete(oldest);
        throw error;
      }
    },
  };
}

async function waitForAll(client: Client, input: Input, signal: AbortSignal | undefined): Promise<Answer> {
  const ids = [...new Set(input["agent_ids"] as string[])];
  const until = input["until"] === "ready" ? "ready" : "ended";
  const timeoutMs = Math.min(parseDuration(text(input, "timeout") ?? "") ?? DEFAULT_WAIT_MS, LONGEST_WAIT_MS);
  // A misspelt id is told at once, not after the others have ended.
  await Promise.all(ids.map((id) => client.agents.get(id, control(signal))));
  const waits = ids.map(async (id) => {
    try {
      const agent = await client.agents.wait(id, { for: until, timeoutMs, ...control(signal) });
      return { id, done: true, view: { ...view(agent, input), ended: isEnded(agent.state) } };
    } catch (error) {
      if (!isOpenStarryError(error)) throw error;
      if (REMOVED.includes(error.code)) return { id, done: true, view: { agent_id: id, removed: true } };
      if (error.code !== "timeout") throw error;
      return { id, done: false, view: view(await client.agents.get(id, control(signal)), input) };
    }
  });
  const results = await Promise.all(waits);
  const late = results.filter(({ done }) => !done).map(({ id }) => id);
  return {
    data: {
      done: late.length === 0,
      ...(late.length === 0
        ? {}
        : { waiting_for: late, next: "call agent_wait again, or look with agent_logs" }),
      agents: results.map((result) => result.view),
    },
  };
}

async function sendTo(client: Client, input: Input, signal: AbortSignal | undefined): Promise<Answer> {
  const agent_id = agentId(input);
  const inbox = `agents/${agent_id}/inbox`;
  const payload = messageOf(text(input, "message") ?? "");
  if (input["wait_for_reply"] !== true) {
    await client.bus.publish(inbox, payload, control(signal));
    return { data: { sent: true, agent_id } };
  }
  const waitMs = parseDuration(text(input, "timeout") ?? "") ?? DEFAULT_WAIT_MS;
  const timeoutMs = Math.min(waitMs, LONGEST_REPLY_WAIT_MS);
  try {
    const reply = await client.bus.request(inbox, payload, { timeoutMs, ...control(signal) });
    return { data: { sent: true, agent_id, replied: true, reply: reply.payload, from: reply.from } };
  } catch (error) {
    // No failure that calls for another try: that would send it twice.
    if (!isOpenStarryError(error) || error.code !== "timeout") throw error;
    const next = "it may still read it: look with agent_status or agent_logs, and do not send it again";
    return { data: { sent: true, agent_id, replied: false, next } };
  }
}

/** Models write objects as text; agents want them as objects. Other text stays text, numbers too. */
function messageOf(message: string): unknown {
  const value = parsed(message);
  return typeof value === "object" && value !== null ? value : message;
}

function templateView(it: TemplateSummary, input: Input): Record<string, unknown> {
  if (input["verbose"] === true) return { ...it };
  const required = new Set(it.params.required);
  const params = Object.entries(it.params.properties).map(([name, schema]) => [
    name,
    required.has(name) ? { ...schema, required: true } : schema,
  ]);
  return { template_id: it.template_id, description: it.description, params: Object.fromEntries(params) };
}

function view(agent: Agent, input: Input): Record<string, unknown> {
  return input["verbose"] === true ? { ...agent } : summary(agent);
}

function lineText({ stream, text = "" }: LogLine): string {
  return stream === "stderr" ? `[stderr] ${text}` : text;
}

/** Agents mostly leave JSON; a model reads it better unpacked, and it can be shortened piece by piece. */
function parsed(result: unknown): unknown {
  if (typeof result !== "string") return result;
  try {
    const value: unknown = JSON.parse(result);
    return nestsDeeperThan(value, MOST_NESTED) ? result : value;
  } catch {
    return result; // whatever else it left
  }
}

/** The same text for the same value, whatever the order of its keys. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

function agentId(input: Input): string {
  return String(input["agent_id"]);
}

function text(input: Input, name: string): string | undefined {
  const value = input[name];
  return typeof value === "string" ? value : undefined;
}

function control(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal ? { signal } : {};
}
