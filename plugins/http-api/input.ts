import { isDeepStrictEqual } from "node:util";
import { OpenStarryError, type StandardSchema } from "../../core/index.js";

/** As much of JSON Schema as is needed to read a text as the type that is expected. */
export interface JsonSchema {
  type?: string | string[];
  const?: unknown;
  enum?: unknown[];
  anyOf?: JsonSchema[];
  oneOf?: JsonSchema[];
  properties?: Record<string, JsonSchema>;
  required?: string[];
  $ref?: string;
  $defs?: Record<string, JsonSchema>;
  [keyword: string]: unknown;
}

/** The JSON Schema of what goes into an operation; `undefined` where its validator cannot tell. */
export function inputSchema(schema: StandardSchema): JsonSchema | undefined {
  try {
    return schema["~standard"].jsonSchema?.input({ target: "draft-2020-12" });
  } catch {
    // The validator knows forms that JSON Schema has no words for.
    return undefined;
  }
}

export interface InputParts {
  path: ReadonlyMap<string, string>;
  query: ReadonlyMap<string, string>;
  body: Readonly<Record<string, unknown>>;
}

/**
 * One input out of a request's three parts. Texts of path and query become the number or boolean that
 * the schema expects, where they are written as one; everything else is left for the schema to judge.
 * A key in two parts must have the same value in both.
 */
export function assembleInput(parts: InputParts, schema: JsonSchema | undefined): Record<string, unknown> {
  const input = new Map<string, unknown>();
  const texts = [...parts.path, ...parts.query].map(([key, text]): [string, unknown] => [
    key,
    coerce(text, propertyOf(schema, key), schema),
  ]);
  for (const [key, value] of [...texts, ...Object.entries(parts.body)]) {
    if (input.has(key) && !isDeepStrictEqual(input.get(key), value)) {
      throw new OpenStarryError("input_invalid", {
        detail: `"${key}" has two different values in the path, the query and the body`,
        hint: `give "${key}" once`,
      });
    }
    input.set(key, value);
  }
  return Object.fromEntries(input);
}

/** The part of a URL behind the question mark. Malformed escapes and repeated keys are refused. */
export function parseQuery(query: string): Map<string, string> {
  const values = new Map<string, string>();
  for (const pair of query.split("&").filter(Boolean)) {
    const split = pair.indexOf("=");
    const key = decode(split < 0 ? pair : pair.slice(0, split));
    if (values.has(key) || key === "__proto__") {
      const problem = values.has(key) ? "more than once" : "and may not be";
      throw new OpenStarryError("input_invalid", {
        detail: `the key ${JSON.stringify(key.slice(0, 100))} is in the query ${problem}`,
        hint: "give every key of the query once",
      });
    }
    values.set(key, split < 0 ? "" : decode(pair.slice(split + 1)));
  }
  return values;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch (cause) {
    throw new OpenStarryError("input_invalid", {
      detail: "the query holds a malformed % escape",
      hint: "encode it as UTF-8, each byte as % and two hexadecimal digits",
      cause,
    });
  }
}

/** Follows a reference within the same document. */
function resolve(schema: JsonSchema | undefined, root: JsonSchema | undefined): JsonSchema | undefined {
  const name = schema?.$ref?.match(/^#\/\$defs\/(.+)$/)?.[1];
  return name === undefined ? schema : root?.$defs?.[name];
}

function propertyOf(root: JsonSchema | undefined, key: string): JsonSchema | undefined {
  const properties = resolve(root, root)?.properties;
  return properties && Object.hasOwn(properties, key) ? properties[key] : undefined;
}

function coerce(text: string, schema: JsonSchema | undefined, root: JsonSchema | undefined): unknown {
  const found = candidates(schema, root);
  const fixed = found.flatMap((it) => (it.enum ? it.enum : "const" in it ? [it.const] : []));
  const literal = fixed.find((value) => String(value) === text);
  if (literal !== undefined) return literal;
  const types = found.flatMap((it) => ("const" in it || it.enum ? [] : (it.type ?? [])));
  if (types.includes("string")) return text;
  if (/^-?(0|[1-9]\d{0,15})$/.test(text) && (types.includes("integer") || types.includes("number"))) {
    return Number(text);
  }
  if (/^-?(0|[1-9]\d{0,15})\.\d{1,17}$/.test(text) && types.includes("number")) return Number(text);
  if (/^(true|false)$/.test(text) && types.includes("boolean")) return text === "true";
  return text;
}

/** The schema itself, or the alternatives that it offers. */
function candidates(schema: JsonSchema | undefined, root: JsonSchema | undefined): JsonSchema[] {
  const found = resolve(schema, root);
  if (!found) return [];
  const alternatives = found.anyOf ?? found.oneOf;
  return alternatives ? alternatives.flatMap((it) => candidates(it, root)) : [found];
}
