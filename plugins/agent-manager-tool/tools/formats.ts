import { plainName, type ToolDefinition } from "./definition.js";

/** A function tool of OpenAI's chat completions, and of everybody who speaks the same. */
export interface OpenAiTool {
  type: "function";
  function: { name: string; description: string; parameters: object; strict: false };
}

/** A client tool of Anthropic's messages. */
export interface AnthropicTool {
  name: string;
  description: string;
  input_schema: { type: "object"; [key: string]: unknown };
}

/** A tool of the Model Context Protocol. */
export interface McpTool {
  name: string;
  title: string;
  description: string;
  inputSchema: { type: "object"; [key: string]: unknown };
  annotations: {
    readOnlyHint: boolean;
    destructiveHint: boolean;
    idempotentHint: boolean;
    openWorldHint: false;
  };
}

/** A tool as OpenStarry's plugins provide it, less what runs it. */
export interface OpenStarryToolShape {
  id: string;
  description: string;
  parameters: ToolDefinition["parameters"];
}

/** `strict` is off: `params` takes what each template declares, which strict schemas cannot say. */
export function openAiTools(definitions: readonly ToolDefinition[]): OpenAiTool[] {
  return definitions.map(({ name, description, parameters }) => ({
    type: "function",
    function: { name: plainName(name), description, parameters, strict: false },
  }));
}

export function anthropicTools(definitions: readonly ToolDefinition[]): AnthropicTool[] {
  return definitions.map(({ name, description, parameters }) => ({
    name: plainName(name),
    description,
    input_schema: { ...parameters },
  }));
}

export function mcpTools(definitions: readonly ToolDefinition[]): McpTool[] {
  return definitions.map(({ name, title, description, parameters, effect, idempotent }) => ({
    name: plainName(name),
    title,
    description,
    inputSchema: { ...parameters },
    annotations: {
      readOnlyHint: effect === "read",
      destructiveHint: effect === "destructive",
      // Repeating a start gives `agent_exists`, repeating a stop nothing new; a restart ends work twice.
      idempotentHint: idempotent,
      openWorldHint: false,
    },
  }));
}

export function openStarryShapes(definitions: readonly ToolDefinition[]): OpenStarryToolShape[] {
  return definitions.map(({ name, description, parameters }) => ({ id: name, description, parameters }));
}

/** The formats that `GET /tools` knows. */
export const FORMATS = {
  openai: openAiTools,
  anthropic: anthropicTools,
  mcp: mcpTools,
  openstarry: openStarryShapes,
} as const;
export type Format = keyof typeof FORMATS;
