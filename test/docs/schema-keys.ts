import { expect } from "vitest";
import { type StandardSchema, validateSync } from "../../core/index.js";
import { code } from "./pages.js";

interface JsonSchema {
  properties?: Record<string, JsonSchema>;
  items?: JsonSchema;
  $ref?: string;
  $defs?: Record<string, JsonSchema>;
}

/** Every key of an object schema, with those below it: `restart.backoff.min`, `agents[].env`. */
export function keysOf(schema: StandardSchema): string[] {
  const root = schema["~standard"].jsonSchema?.input({ target: "draft-2020-12" }) as JsonSchema | undefined;
  const inside = (node: JsonSchema, prefix: string): string[] => {
    const part = node.$ref ? (root?.$defs?.[node.$ref.replace("#/$defs/", "")] ?? {}) : node;
    return Object.entries(part.properties ?? {}).flatMap(([key, child]) => [
      prefix + key,
      ...inside(child, `${prefix}${key}.`),
      ...(child.items ? inside(child.items, `${prefix}${key}[].`) : []),
    ]);
  };
  return root ? inside(root, "") : [];
}

/** The rows of a table whose default is given as code, which is JSON. */
export function documentedDefaults(
  rows: readonly Record<string, string>[],
  column: string,
): [string, unknown][] {
  return rows.flatMap((row) => {
    const [key] = code(row[column]);
    const [given] = code(row["default"]);
    return key === undefined || given === undefined ? [] : [[key, JSON.parse(given)] as [string, unknown]];
  });
}

/** Holds defaults to the schema: to write one out must not change what comes of `base`. */
export function expectDefaults(
  schema: StandardSchema,
  base: Record<string, unknown>,
  defaults: readonly (readonly [string, unknown])[],
): void {
  const options = { code: "internal", what: "the example" } as const;
  const plain = validateSync(schema, base, options);
  for (const [key, value] of defaults) {
    expect(validateSync(schema, withKey(base, key.split("."), value), options), key).toEqual(plain);
  }
}

function withKey(document: Record<string, unknown>, path: string[], value: unknown): Record<string, unknown> {
  const [key = "", ...rest] = path;
  if (rest.length === 0) return { ...document, [key]: value };
  return { ...document, [key]: withKey((document[key] ?? {}) as Record<string, unknown>, rest, value) };
}
