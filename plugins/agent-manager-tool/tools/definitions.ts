/** The part of JSON Schema that the tools' arguments are described with. */
export type ArgumentSchema = {
  readonly description: string;
} & (
  | { readonly type: "string"; readonly pattern?: string; readonly enum?: readonly string[] }
  | { readonly type: "integer"; readonly minimum: number; readonly maximum: number }
  | { readonly type: "boolean" }
  | { readonly type: "object"; readonly additionalProperties: true | { readonly type: "string" } }
  | {
      readonly type: "array";
      readonly items: { readonly type: "string" };
      readonly minItems: number;
      readonly maxItems: number;
    }
);

export interface ToolDefinition {
  /** As people and OpenStarry write it. Where colons are not allowed: `agent_start`. */
  readonly name: ToolName;
  readonly title: string;
  readonly description: string;
  /** `read` changes nothing; `change` may; `end` ends work in progress. */
  readonly effect: "read" | "change" | "end";
  readonly parameters: {
    readonly type: "object";
    readonly properties: Readonly<Record<string, ArgumentSchema>>;
    readonly required: readonly string[];
    readonly additionalProperties: false;
  };
}

export const TOOL_NAMES = [
  "agent:templates",
  "agent:start",
  "agent:wait",
  "agent:result",
  "agent:status",
  "agent:list",
  "agent:logs",
  "agent:why",
  "agent:send",
  "agent:restart",
  "agent:stop",
] as const;
export type ToolName = (typeof TOOL_NAMES)[number];

const DURATION = "^([0-9]+(\\.[0-9]{1,3})?(ms|s|m|h|d))+$";

const agentId = {
  type: "string",
  description: "The id of the agent, as agent:start or agent:list gave it.",
} as const;

/** How much comes back; taken by every tool that can have much to tell. */
const size = {
  verbose: {
    type: "boolean",
    description: "True: complete records instead of summaries, up to 64 KiB. Default false: at most 4 KiB.",
  },
  max_bytes: {
    type: "integer",
    minimum: 1_024,
    maximum: 1_048_576,
    description:
      "How large the answer may be, in bytes. Default 4096. More than that is shortened, and says so.",
  },
} as const;

function tool(
  name: ToolName,
  title: string,
  effect: ToolDefinition["effect"],
  description: string,
  properties: Readonly<Record<string, ArgumentSchema>>,
  required: readonly string[] = [],
): ToolDefinition {
  return {
    name,
    title,
    effect,
    description,
    parameters: { type: "object", properties, required, additionalProperties: false },
  };
}

/** Every tool, in the order in which a model needs them. */
export const DEFINITIONS: readonly ToolDefinition[] = [
  tool(
    "agent:templates",
    "List agent templates",
    "read",
    "Lists the templates that agents can be started from: id, what such an agent does, and which params it " +
      "takes (required ones and their types). Call this before agent:start unless you know the template.",
    {
      template_id: { type: "string", description: "Only this template. Leave out to list all." },
      ...size,
    },
  ),
  tool(
    "agent:start",
    "Start an agent",
    "change",
    "Starts a new agent as an independent process that works on its own. Returns at once, with the agent's id " +
      "and state; use agent:wait to wait for its end and agent:result for what it produced. Choose a clear " +
      "agent_id, because one id can be started only once, so that repeating a call can never give two agents. " +
      "To give the same template two jobs, start two agents with different ids.",
    {
      template_id: { type: "string", description: "Which kind of agent; one of the ids of agent:templates." },
      agent_id: {
        type: "string",
        pattern: "^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$",
        description:
          "The new agent's id: 1 to 63 letters, digits, '.', '_' or '-', such as data_worker_1. " +
          "Left out: the daemon makes one up.",
      },
      params: {
        type: "object",
        additionalProperties: true,
        description:
          "The job: values for the template's params, by name. agent:templates tells which it takes.",
      },
      labels: {
        type: "object",
        additionalProperties: { type: "string" },
        description: 'Notes to find the agent by later, such as {"job": "sales-report"}.',
      },
      wait_until: {
        type: "string",
        enum: ["started", "ready"],
        description:
          "When to return: once the process exists (started, the default) or once the agent is ready.",
      },
    },
    ["template_id"],
  ),
  tool(
    "agent:wait",
    "Wait for agents",
    "read",
    "Waits until all the given agents have ended (or are ready), and returns the state of each. When the timeout " +
      "comes first, it returns what is the case by then, with done: false; that is no error: call it again to go " +
      "on waiting.",
    {
      agent_ids: {
        type: "array",
        items: { type: "string" },
        minItems: 1,
        maxItems: 50,
        description: 'The ids of the agents to wait for, such as ["worker_1", "worker_2"].',
      },
      until: {
        type: "string",
        enum: ["ended", "ready"],
        description:
          "ended (the default): its work is over, whatever came of it. ready: it is up and can be used.",
      },
      timeout: {
        type: "string",
        pattern: DURATION,
        description:
          'The longest time to wait, with its unit, such as "30s" or "10m". Default "45s", at most "1h".',
      },
      ...size,
    },
    ["agent_ids"],
  ),
  tool(
    "agent:result",
    "Get an agent's result",
    "read",
    "Returns what an agent left as its result when it ended. While it still runs there is none: agent:wait first.",
    { agent_id: agentId, ...size },
    ["agent_id"],
  ),
  tool(
    "agent:status",
    "Show an agent",
    "read",
    "Shows one agent: its state (pending, starting, running, stopping, backoff, stopped, exited, failed) and the " +
      "reason, its health, restarts, its own last words about its progress, and how its last run ended.",
    { agent_id: agentId, ...size },
    ["agent_id"],
  ),
  tool(
    "agent:list",
    "List agents",
    "read",
    "Lists the agents that you may see: yourself and those that you started. Filters narrow it down.",
    {
      state: {
        type: "string",
        enum: ["pending", "starting", "running", "stopping", "backoff", "stopped", "exited", "failed"],
        description: "Only agents in this state.",
      },
      template_id: { type: "string", description: "Only agents of this template." },
      label: { type: "string", description: 'Only agents with this label, as "name=value".' },
      limit: { type: "integer", minimum: 1, maximum: 1_000, description: "How many at most. Default 50." },
      cursor: {
        type: "string",
        description: "The next_cursor of the last answer, for the agents after those.",
      },
      ...size,
    },
  ),
  tool(
    "agent:logs",
    "Read an agent's output",
    "read",
    "Returns the last lines that an agent printed, of its newest run; what went to standard error begins with " +
      "[stderr]. The place to look when an agent failed or hangs.",
    {
      agent_id: agentId,
      tail: {
        type: "integer",
        minimum: 1,
        maximum: 10_000,
        description: "How many lines, counted from the end. Default 40.",
      },
      stream: {
        type: "string",
        enum: ["stdout", "stderr"],
        description: "Only this stream. Left out: both.",
      },
      previous: { type: "boolean", description: "True: of the run before the newest one. Default false." },
      since: {
        type: "string",
        description:
          'Only what was printed since then, over restarts: "10m" for ten minutes ago, or RFC 3339.',
      },
      until: { type: "string", description: "Only what was printed until then; written like since." },
      ...size,
    },
    ["agent_id"],
  ),
  tool(
    "agent:why",
    "Explain an agent's state",
    "read",
    "Explains why an agent is in the state that it is in: what happened to it, who asked for it, how its last run " +
      "ended, and what happens next.",
    { agent_id: agentId, ...size },
    ["agent_id"],
  ),
  tool(
    "agent:send",
    "Send an agent a message",
    "change",
    "Puts a message into an agent's inbox, where the daemon has a message bus: an agent that you started, the one " +
      "that started you, or another one of its. With wait_for_reply: true it returns what comes back; when nothing " +
      "comes in time, the message is sent all the same, so do not send it again.",
    {
      agent_id: agentId,
      message: {
        type: "string",
        description: "What to tell it. The text of a JSON object or list arrives as that.",
      },
      wait_for_reply: { type: "boolean", description: "True: wait for its answer. Default false." },
      timeout: {
        type: "string",
        pattern: DURATION,
        description:
          'How long to wait for the answer, with its unit, such as "30s". Default "45s", at most "10m".',
      },
      ...size,
    },
    ["agent_id", "message"],
  ),
  tool(
    "agent:restart",
    "Restart an agent",
    "end",
    "Ends an agent's process if one runs, and starts it again with the same id and params. Also starts again an " +
      "agent that has stopped, exited or failed. Its work in progress is lost.",
    { agent_id: agentId },
    ["agent_id"],
  ),
  tool(
    "agent:stop",
    "Stop an agent",
    "end",
    "Ends an agent and every process that it started: first politely, by force after its grace period. With " +
      "remove: true its record goes too, its result with it, and its id can be used again. Ending an agent that " +
      "has ended already does no harm.",
    {
      agent_id: agentId,
      remove: {
        type: "boolean",
        description: "True: forget the agent too. Read its result first. Default false.",
      },
      grace: {
        type: "string",
        pattern: DURATION,
        description: 'How long it may take to end by itself, such as "10s". Default: what its template says.',
      },
    },
    ["agent_id"],
  ),
];

const BY_NAME = new Map(DEFINITIONS.map((definition) => [definition.name as string, definition]));

/** By any of its names: `agent:start`, `agent_start`, `agent.start`, `agent-start`. */
export function findTool(name: string): ToolDefinition | undefined {
  return BY_NAME.get(
    name
      .trim()
      .toLowerCase()
      .replace(/^(agent)[_.:-]/, "$1:"),
  );
}

/** For where a name may hold letters, digits and `_` only. */
export function plainName(name: ToolName): string {
  return name.replace(":", "_");
}
