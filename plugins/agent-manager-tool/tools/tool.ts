import { OpenStarryError } from "../../../core/contracts/errors.js";
import { nearest } from "../../../core/lib/nearest.js";
import { type Client, clientFromEnv } from "../client/client.js";
import { checkArgs } from "./check-args.js";
import { plainName } from "./definition.js";
import { DEFINITIONS, findTool, TOOL_NAMES } from "./definitions.js";
import {
  type AnthropicTool,
  anthropicTools,
  type McpTool,
  mcpTools,
  type OpenAiTool,
  type OpenStarryToolShape,
  openAiTools,
  openStarryShapes,
} from "./formats.js";
import { createHandlers } from "./handlers.js";
import { type Attempt, explain, fitError, type ToolError } from "./hints.js";
import { shorten } from "./shorten.js";

export type { AnthropicTool, McpTool, OpenAiTool, OpenStarryToolShape } from "./formats.js";
export type { ToolError } from "./hints.js";

/** What `execute` answers, also when everything went wrong. */
export type ToolResult =
  | { ok: true; data: Record<string, unknown>; error?: undefined }
  | { ok: false; error: ToolError; data?: undefined };

export interface ExecuteOptions {
  /** Gives the call up; what it started goes on. */
  signal?: AbortSignal;
}

/** A tool in the shape of the OpenStarry project. */
export interface OpenStarryTool extends Omit<OpenStarryToolShape, "parameters"> {
  /** JSON Schema, or what `toParameters` made of it. */
  parameters: unknown;
  /** Answers a `ToolResult` as JSON text. */
  execute(input: unknown, context?: ExecuteOptions): Promise<string>;
}

export interface AgentManagerTool {
  /** The API behind the tool, for what a program rather than a model wants to ask. */
  readonly client: Client;
  /** For chat completions of OpenAI and of everybody who speaks the same. */
  openAiTools(): OpenAiTool[];
  /** For the messages API of Anthropic. */
  anthropicTools(): AnthropicTool[];
  /** For the Model Context Protocol. */
  mcpTools(): McpTool[];
  /**
   * For OpenStarry. Its hosts want a validator's schema where others take JSON Schema: hand over what
   * makes one, such as `z.fromJSONSchema` of zod 4.
   */
  openStarryTools(toParameters?: (schema: OpenStarryToolShape["parameters"]) => unknown): OpenStarryTool[];
  /**
   * Carries a tool call out. `name` may be written `agent:start`, `agent_start` or `agent.start`; `args`
   * is an object, or the JSON text of one. Never throws. The answer is at most 4 KiB of JSON, unless
   * `args` asks for more by `verbose` (64 KiB) or `max_bytes`.
   */
  execute(name: string, args?: unknown, options?: ExecuteOptions): Promise<ToolResult>;
}

export interface AgentManagerToolOptions {
  /** Default: `clientFromEnv(env)`, made at the first call. */
  client?: Client;
  /** Default: the process's own. */
  env?: NodeJS.ProcessEnv;
}

const DEFAULT_BYTES = 4_096;
const VERBOSE_BYTES = 65_536;

/** The tools that let a model start, watch and end agents. */
export function createAgentManagerTool(options: AgentManagerToolOptions = {}): AgentManagerTool {
  let made = options.client;
  const client = () => {
    made ??= clientFromEnv(options.env);
    return made;
  };
  const handlers = createHandlers(client);

  async function attempt(name: string, attempted: Attempt, args: unknown): Promise<ToolResult> {
    const tool = findTool(name);
    if (!tool) throw unknownTool(name);
    const input = checkArgs(tool, args);
    attempted.input = input;
    const answer = await handlers[tool.name](input, attempted.signal);
    const data = shorten(answer.data, {
      maxBytes: sizeOf(input),
      keep: answer.keep ?? "first",
      howToGetMore: answer.howToGetMore ?? "Ask with a larger max_bytes for more.",
    });
    return { ok: true, data };
  }

  async function execute(name: string, args?: unknown, { signal }: ExecuteOptions = {}): Promise<ToolResult> {
    const attempted: Attempt = { client, input: {}, ...(signal ? { signal } : {}) };
    try {
      return await attempt(String(name), attempted, args);
    } catch (error) {
      return { ok: false, error: fitError(await explain(error, attempted), DEFAULT_BYTES) };
    }
  }

  return {
    get client() {
      return client();
    },
    openAiTools: () => openAiTools(DEFINITIONS),
    anthropicTools: () => anthropicTools(DEFINITIONS),
    mcpTools: () => mcpTools(DEFINITIONS),
    openStarryTools: (toParameters = (schema) => schema) =>
      openStarryShapes(DEFINITIONS).map(({ id, description, parameters }) => ({
        id,
        description,
        parameters: toParameters(parameters),
        execute: async (input, context = {}) =>
          JSON.stringify(await execute(id, input, context.signal ? { signal: context.signal } : {})),
      })),
    execute,
  };
}

function sizeOf(input: Readonly<Record<string, unknown>>): number {
  const { max_bytes: asked, verbose } = input;
  return typeof asked === "number" ? asked : verbose === true ? VERBOSE_BYTES : DEFAULT_BYTES;
}

function unknownTool(name: string): OpenStarryError {
  const names = TOOL_NAMES.map(plainName);
  const guess = nearest(name.replace(":", "_"), names);
  return new OpenStarryError("operation_unknown", {
    detail: `there is no tool "${name.slice(0, 100)}"`,
    hint: `${guess ? `did you mean "${guess}"? ` : ""}the tools are: ${names.join(", ")}`,
  });
}
