import { nearest } from "../lib/nearest.js";

/** What the value of a keyword must be. */
type Kind =
  | "any"
  | "text"
  | "number"
  | "count"
  | "flag"
  | "pattern"
  | "list"
  | "names"
  | "schema"
  | "schemas"
  | "map"
  | "type";

/** The JSON Schema keywords that parameters may use, and the types that each of them says something about. */
const KEYWORDS: Readonly<Record<string, readonly [Kind, ...string[]]>> = {
  title: ["text"],
  description: ["text"],
  default: ["any"],
  examples: ["list"],
  type: ["type"],
  enum: ["list"],
  const: ["any"],
  anyOf: ["schemas"],
  oneOf: ["schemas"],
  allOf: ["schemas"],
  minLength: ["count", "string"],
  maxLength: ["count", "string"],
  pattern: ["pattern", "string"],
  format: ["text", "string"],
  minimum: ["number", "number", "integer"],
  maximum: ["number", "number", "integer"],
  exclusiveMinimum: ["number", "number", "integer"],
  exclusiveMaximum: ["number", "number", "integer"],
  multipleOf: ["number", "number", "integer"],
  items: ["schema", "array"],
  prefixItems: ["schemas", "array"],
  minItems: ["count", "array"],
  maxItems: ["count", "array"],
  uniqueItems: ["flag", "array"],
  properties: ["map", "object"],
  required: ["names", "object"],
  additionalProperties: ["schema", "object"],
};
const TYPES = ["string", "number", "integer", "boolean", "array", "object", "null"];

export interface SchemaProblem {
  path: (string | number)[];
  message: string;
}

/**
 * What is wrong with the JSON Schema of one parameter. JSON Schema itself ignores what it does not know,
 * and a limit that stands beside the wrong type: a misspelt `maxLength` would pass for ever unnoticed.
 */
export function checkParamSchema(schema: unknown, path: (string | number)[] = []): SchemaProblem[] {
  if (!isRecord(schema)) return [{ path, message: "expected a JSON Schema, such as { type: string }" }];
  return Object.entries(schema).flatMap(([keyword, value]) => {
    const at = [...path, keyword];
    const known = Object.hasOwn(KEYWORDS, keyword) ? KEYWORDS[keyword] : undefined;
    if (!known) return [{ path: at, message: unknownKeyword(keyword) }];
    const [kind, ...types] = known;
    return [...checkValue(kind, value, at), ...checkTypes(keyword, types, schema["type"], at)];
  });
}

function unknownKeyword(keyword: string): string {
  const guess = nearest(keyword, Object.keys(KEYWORDS));
  return `this keyword of JSON Schema is not known here${guess === undefined ? "" : ` (did you mean "${guess}"?)`}`;
}

/** A keyword about strings is of no effect unless the type is one. */
function checkTypes(
  keyword: string,
  needed: readonly string[],
  type: unknown,
  path: (string | number)[],
): SchemaProblem[] {
  const given = Array.isArray(type) ? type : [type];
  if (needed.length === 0 || needed.some((it) => given.includes(it))) return [];
  return [{ path, message: `${keyword} needs type: ${needed.join(" or ")} beside it` }];
}

function checkValue(kind: Kind, value: unknown, path: (string | number)[]): SchemaProblem[] {
  const expected = (what: string, fits: boolean) => (fits ? [] : [{ path, message: `expected ${what}` }]);
  switch (kind) {
    case "text":
      return expected("text", typeof value === "string");
    case "number":
      return expected("a number", typeof value === "number");
    case "count":
      return expected("a whole number of at least 0", Number.isSafeInteger(value) && (value as number) >= 0);
    case "flag":
      return expected("true or false", typeof value === "boolean");
    case "pattern":
      return expected("a regular expression", isPattern(value));
    case "type":
      return expected(`one of ${TYPES.join(", ")}, or a list of them`, isType(value));
    case "list":
      return expected("a list with at least one value", Array.isArray(value) && value.length > 0);
    case "names":
      return expected("a list of names", Array.isArray(value) && value.every((it) => typeof it === "string"));
    case "schema":
      return typeof value === "boolean" ? [] : checkParamSchema(value, path);
    case "schemas":
      if (!Array.isArray(value) || value.length === 0) return expected("a list of JSON Schemas", false);
      return value.flatMap((it, index) => checkParamSchema(it, [...path, index]));
    case "map":
      if (!isRecord(value)) return expected("JSON Schemas by name", false);
      return Object.entries(value).flatMap(([name, it]) => checkParamSchema(it, [...path, name]));
    case "any":
      return [];
  }
}

function isType(value: unknown): boolean {
  const types: unknown[] = Array.isArray(value) ? value : [value];
  return types.length > 0 && types.every((it) => TYPES.includes(it as string));
}

function isPattern(value: unknown): boolean {
  try {
    return typeof value === "string" && new RegExp(value) instanceof RegExp;
  } catch {
    return false;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
