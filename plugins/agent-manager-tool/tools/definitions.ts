import type { ToolDefinition } from "./definition.js";
import { GENERATED } from "./definitions.generated.js";

export type ToolName = (typeof GENERATED)[number]["name"];

/** Every tool of the built-in operations, in the order in which a model needs them. */
export const DEFINITIONS: readonly (ToolDefinition & { readonly name: ToolName })[] = GENERATED;

export const TOOL_NAMES: readonly ToolName[] = DEFINITIONS.map(({ name }) => name);

const BY_NAME = new Map(DEFINITIONS.map((definition) => [definition.name as string, definition]));

/** Finds a tool by any of its names: `agent:start`, `agent_start`, `agent.start`, `agent-start`. */
export function findTool(name: string): (ToolDefinition & { readonly name: ToolName }) | undefined {
  return BY_NAME.get(
    name
      .trim()
      .toLowerCase()
      .replace(/^(agent)[_.:-]/, "$1:"),
  );
}
