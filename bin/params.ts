import { readFileSync } from "node:fs";
import { OpenStarryError } from "../core/contracts/errors.js";

/** A parameter's JSON Schema, as templates declare it. */
type ParamSchema = Record<string, unknown>;

/**
 * Converts the values of `--param` for the template's schemas: text stays text where a string is allowed, otherwise it
 * is parsed as JSON. `@FILE` means the file's content, `@@` a literal "@". Invalid values pass unchanged: the daemon
 * rejects them with the reason.
 */
export function parseParams(
  given: Readonly<Record<string, string>>,
  schemas: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const entries = Object.entries(given).map(([name, text]): [string, unknown] => {
    const schema = Object.hasOwn(schemas, name) ? (schemas[name] as ParamSchema) : {};
    return [name, parseValue(contentOf(name, text), schema)];
  });
  return Object.fromEntries(entries);
}

function contentOf(name: string, text: string): string {
  if (text.startsWith("@@")) return text.slice(1);
  if (!text.startsWith("@")) return text;
  try {
    return readFileSync(text.slice(1), "utf8");
  } catch (cause) {
    throw new OpenStarryError("params_invalid", {
      detail: `--param ${name}: ${(cause as Error).message}`,
      hint: `give an existing file, or write "@@" for a value that starts with "@"`,
      cause,
    });
  }
}

function parseValue(text: string, schema: ParamSchema): unknown {
  if (takesText(text, schema)) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function takesText(text: string, { type, enum: values, const: constant }: ParamSchema): boolean {
  if (Array.isArray(values)) return values.includes(text);
  if (constant !== undefined) return constant === text;
  if (Array.isArray(type)) return type.includes("string");
  return type === undefined || type === "string";
}
