import type { Operation, OperationTool, StandardSchema } from "../../../core/index.js";
import type { ArgumentSchema, ToolDefinition } from "./definition.js";

/** How large an answer may be: arguments of every tool whose answers can be large. */
const SIZE: Readonly<Record<string, ArgumentSchema>> = {
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
};

/** Derives the definitions of tools from the table of operations; those of `first` come first, in its order. */
export function toolsOf(operations: Iterable<Operation>, first: readonly string[]): ToolDefinition[] {
  const rank = (name: string) => {
    const index = first.indexOf(name);
    return index < 0 ? first.length : index;
  };
  const tools = [...operations].flatMap((operation) =>
    (operation.tools ?? []).map((tool) => definitionOf(operation, tool)),
  );
  return tools.sort((a, b) => rank(a.name) - rank(b.name));
}

function definitionOf(operation: Operation, tool: OperationTool): ToolDefinition {
  const { name, title, effect, idempotent = true, sizable = effect === "read" } = tool;
  const { properties = {}, required = [] } = jsonSchemaOf(tool.input ?? operation.input);
  return {
    name,
    title,
    effect,
    idempotent,
    operation: operation.name,
    description: tool.description ?? operation.summary,
    parameters: {
      type: "object",
      properties: { ...properties, ...(sizable ? SIZE : {}) },
      required,
      additionalProperties: false,
    },
  };
}

interface ObjectSchema {
  properties?: Record<string, ArgumentSchema>;
  required?: string[];
}

function jsonSchemaOf(schema: StandardSchema): ObjectSchema {
  try {
    return plain(schema["~standard"].jsonSchema?.input({ target: "draft-2020-12" }) ?? {}) as ObjectSchema;
  } catch {
    // The validator knows forms that JSON Schema has no words for.
    return {};
  }
}

/** A copy in the few words that every model API takes: no `propertyNames`, `true` for "anything". */
function plain(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(plain);
  if (typeof node !== "object" || node === null) return node;
  const entries = Object.entries(node).filter(([key]) => key !== "propertyNames");
  return Object.fromEntries(
    entries.map(([key, value]) => [
      key,
      key === "additionalProperties" && JSON.stringify(value) === "{}" ? true : plain(value),
    ]),
  );
}
