import { OpenStarryError } from "../../../core/contracts/errors.js";
import { nearest } from "../../../core/lib/nearest.js";
import { type ArgumentSchema, plainName, type ToolDefinition } from "./definition.js";
import { MOST_NESTED, nestsDeeperThan } from "./nesting.js";

/**
 * Checks what a model handed over against the tool's own definition, and answers it cleaned: JSON text
 * is parsed, `null` counts as left out, one id is taken where a list of ids is wanted. Throws
 * `input_invalid`, its hint saying what the tool takes.
 */
export function checkArgs(tool: ToolDefinition, args: unknown): Record<string, unknown> {
  const given = asObject(tool, args);
  const { properties, required } = tool.parameters;
  const clean: Record<string, unknown> = {};
  const problems: string[] = [];
  for (const [name, raw] of Object.entries(given)) {
    const schema = Object.hasOwn(properties, name) ? properties[name] : undefined;
    if (!schema) {
      const guess = nearest(name, Object.keys(properties)) ?? singularOf(name, properties);
      problems.push(`unknown argument "${name.slice(0, 60)}"${guess ? ` (did you mean "${guess}"?)` : ""}`);
      continue;
    }
    if (raw === null || raw === undefined) continue;
    const value = lenient(schema, raw);
    const problem = whyNotJson(value) ?? mismatch(schema, value);
    if (problem) problems.push(`${name}: ${problem}`);
    else clean[name] = value;
  }
  for (const name of required) {
    const absent = given[name] === undefined || given[name] === null;
    if (absent) problems.push(`"${name}" is missing`);
  }
  if (problems.length === 0) return clean;
  throw new OpenStarryError("input_invalid", {
    detail: `${plainName(tool.name)}: ${problems.slice(0, 5).join("; ")}`,
    hint: usage(tool),
  });
}

/** What a tool takes, in one sentence. */
export function usage(tool: ToolDefinition): string {
  const required = new Set(tool.parameters.required);
  const list = Object.entries(tool.parameters.properties).map(
    ([name, schema]) => `${name} (${typeName(schema)}${required.has(name) ? ", required" : ""})`,
  );
  return `${plainName(tool.name)} takes ${list.join(", ")}`;
}

function asObject(tool: ToolDefinition, args: unknown): Record<string, unknown> {
  let value = args ?? {};
  if (typeof value === "string") {
    try {
      value = value.trim() === "" ? {} : JSON.parse(value);
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : "";
      throw new OpenStarryError("input_invalid", {
        detail: `${plainName(tool.name)}: the arguments are not valid JSON: ${why}`,
        hint: `give one JSON object; ${usage(tool)}`,
      });
    }
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>;
  throw new OpenStarryError("input_invalid", {
    detail: `${plainName(tool.name)}: the arguments are ${nameOf(value)}, expected an object`,
    hint: usage(tool),
  });
}

/** `agent_id` for `agent_ids` and the other way round is further apart than a misspelling. */
function singularOf(name: string, properties: Readonly<Record<string, unknown>>): string | undefined {
  return Object.keys(properties).find((known) => known === `${name}s` || `${known}s` === name);
}

function lenient(schema: ArgumentSchema, raw: unknown): unknown {
  if (schema.type === "array" && typeof raw === "string") return [raw];
  if (schema.type === "object" && typeof raw === "string") {
    try {
      return JSON.parse(raw);
    } catch {
      return raw; // told as the string that it is
    }
  }
  return raw;
}

/** Why a value cannot be sent as JSON, if it cannot. */
function whyNotJson(value: unknown): string | undefined {
  if (nestsDeeperThan(value, MOST_NESTED)) return `it is nested more than ${MOST_NESTED} levels deep`;
  try {
    JSON.stringify(value);
    return undefined;
  } catch (cause) {
    return `it cannot be written as JSON: ${cause instanceof Error ? cause.message : ""}`;
  }
}

function mismatch(schema: ArgumentSchema, value: unknown): string | undefined {
  const wrong = `expected ${typeName(schema)}, got ${nameOf(value)}`;
  switch (schema.type) {
    case "string":
      if (typeof value !== "string") return wrong;
      if (schema.enum && !schema.enum.includes(value)) {
        const guess = nearest(value, schema.enum);
        return `${wrong}${guess ? ` (did you mean "${guess}"?)` : ""}`;
      }
      return schema.pattern && !new RegExp(schema.pattern).test(value.slice(0, 200))
        ? `${wrong}; ${schema.description}`
        : undefined;
    case "integer":
      if (!Number.isSafeInteger(value)) return wrong;
      return (value as number) < schema.minimum || (value as number) > schema.maximum ? wrong : undefined;
    case "boolean":
      return typeof value === "boolean" ? undefined : wrong;
    case "array":
      if (!Array.isArray(value) || !value.every((item) => typeof item === "string")) return wrong;
      return value.length < schema.minItems || value.length > schema.maxItems ? wrong : undefined;
    case "object":
      if (typeof value !== "object" || value === null || Array.isArray(value)) return wrong;
      return schema.additionalProperties === true ||
        Object.values(value).every((it) => typeof it === "string")
        ? undefined
        : wrong;
  }
}

function typeName(schema: ArgumentSchema): string {
  switch (schema.type) {
    case "string":
      return schema.enum ? `one of ${schema.enum.map((it) => JSON.stringify(it)).join(", ")}` : "string";
    case "integer":
      return `integer from ${schema.minimum} to ${schema.maximum}`;
    case "array":
      return `list of ${schema.minItems} to ${schema.maxItems} strings`;
    case "object":
      return schema.additionalProperties === true ? "object" : "object of strings";
    default:
      return schema.type;
  }
}

function nameOf(value: unknown): string {
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === "object") return "an object";
  if (typeof value === "bigint") return `${value}n`.slice(0, 80);
  return (JSON.stringify(value) ?? typeof value).slice(0, 80);
}
