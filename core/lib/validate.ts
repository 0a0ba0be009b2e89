import { type ErrorCode, OpenStarryError } from "../contracts/errors.js";
import type { StandardIssue, StandardSchema } from "../contracts/standard-schema.js";
import { nearest } from "./nearest.js";

export interface ValidateOptions {
  code: ErrorCode;
  /** What is being checked, for the message: `the input of agents.create`, `template file x.yaml`. */
  what: string;
  hint?: string;
  /** The line, from 1, of the value at a path, where the value was read from a text. */
  lineOf?: (path: readonly PropertyKey[]) => number;
}

/** Checks a value; every issue stands in one error that names its place. */
export async function validate<O>(
  schema: StandardSchema<unknown, O>,
  value: unknown,
  options: ValidateOptions,
): Promise<O> {
  const result = await schema["~standard"].validate(value);
  if (result.issues) throw issuesError(result.issues, schema, options);
  return result.value;
}

/** For schemas known to answer at once. */
export function validateSync<O>(
  schema: StandardSchema<unknown, O>,
  value: unknown,
  options: ValidateOptions,
): O {
  const result = schema["~standard"].validate(value);
  if (result instanceof Promise) throw new TypeError(`the schema of ${options.what} is asynchronous`);
  if (result.issues) throw issuesError(result.issues, schema, options);
  return result.value;
}

function issuesError(
  found: readonly StandardIssue[],
  schema: StandardSchema,
  options: ValidateOptions,
): OpenStarryError {
  const issues = found.flatMap(ofNearestAlternative);
  const known = knownKeys(schema);
  const lines = issues.slice(0, 10).map((issue) => {
    const text = describe(issue, known);
    return options.lineOf ? `line ${options.lineOf(lookedFor(issue))}: ${text}` : text;
  });
  if (issues.length > 10) lines.push(`and ${issues.length - 10} more`);
  return new OpenStarryError(options.code, {
    detail: `${options.what}: ${lines.join("; ")}`,
    hint: options.hint,
    data: { issues: issues.slice(0, 10).map((issue) => ({ path: pathOf(issue), message: readable(issue) })) },
  });
}

function describe(issue: DetailedIssue, known: (path: readonly PropertyKey[]) => readonly string[]): string {
  const path = pathOf(issue);
  if (!Array.isArray(issue.keys)) return path ? `${path}: ${readable(issue)}` : readable(issue);
  const names = known(keysOf(issue));
  return issue.keys
    .map((key) => {
      const guess = nearest(String(key), names);
      const full = path ? `${path}.${key}` : String(key);
      const help = guess ? `did you mean "${guess}"?` : names.length ? `known: ${names.join(", ")}` : "";
      return `unknown key "${full}"${help ? ` (${help})` : ""}`;
    })
    .join("; ");
}

/** What zod tells of an issue besides its message; another validator may tell none of it. */
interface DetailedIssue extends StandardIssue {
  readonly code?: string;
  /** Of keys that are not known. */
  readonly keys?: unknown;
  readonly expected?: unknown;
  /** The values that would be right. */
  readonly values?: readonly unknown[];
  /** Why each alternative of a union did not fit. */
  readonly errors?: readonly (readonly DetailedIssue[])[];
  /** Of what is too small or too big. */
  readonly origin?: string;
  readonly minimum?: unknown;
  readonly maximum?: unknown;
  readonly inclusive?: boolean;
  /** Why the key of a record did not fit. */
  readonly issues?: readonly DetailedIssue[];
}

/** The message, in words that say what would be right. */
function readable(issue: DetailedIssue): string {
  if (issue.code === "invalid_key" && issue.issues?.[0])
    return `this name is not valid: ${readable(issue.issues[0])}`;
  if (issue.code === "too_small" || issue.code === "too_big") return limit(issue);
  const wanted = expectations(issue);
  if (wanted.length === 0) return issue.message;
  const expected = `expected ${wanted.length > 2 ? "one of " : ""}${wanted.length > 2 ? wanted.join(", ") : wanted.join(" or ")}`;
  if (issue.message.endsWith("received undefined")) return `it is missing; ${expected}`;
  const received = /received (\w+)$/.exec(issue.message)?.[1];
  if (received === undefined) return expected;
  const unquoted =
    wanted.length === 1 && wanted[0] === "string" && (received === "number" || received === "boolean");
  return `${expected}, received ${received}${unquoted ? "; put it in quotes" : ""}`;
}

/** `expected at most 3 characters`. */
function limit({ code, origin = "", minimum, maximum, inclusive, message }: DetailedIssue): string {
  const unit = { string: "character", array: "item", object: "key", set: "item" }[origin];
  const bound = code === "too_small" ? minimum : maximum;
  if (bound === undefined) return message;
  const relation =
    code === "too_small"
      ? inclusive === false
        ? "more than"
        : "at least"
      : inclusive === false
        ? "less than"
        : "at most";
  return unit === undefined
    ? `expected a number of ${relation} ${String(bound)}`
    : `expected ${relation} ${String(bound)} ${unit}${bound === 1 ? "" : "s"}`;
}

/** What would have been right: types and values. Empty where the message says more. */
function expectations({ code, expected, values, errors, path }: DetailedIssue): string[] {
  if (code === "invalid_type") return [expected === "int" ? "a whole number" : String(expected)];
  if (code === "invalid_value" && values) return values.map((value) => JSON.stringify(value));
  if (code !== "invalid_union" || !errors) return [];
  // Only what was said of the value itself: an alternative that it nearly was has more to say elsewhere.
  const own = errors.map((issues) => issues.find((it) => (it.path ?? []).length === 0));
  if (own.some((issue) => issue === undefined)) return [];
  return [...new Set(own.flatMap((issue) => (issue ? expectations({ ...issue, path }) : [])))];
}

/** Instead of an issue about a union, those of the one alternative that the value nearly was. */
function ofNearestAlternative(issue: DetailedIssue): DetailedIssue[] {
  const isInside = ({ path = [], keys }: DetailedIssue) => path.length > 0 || Array.isArray(keys);
  const near = issue.code === "invalid_union" ? issue.errors?.filter((it) => it.every(isInside)) : [];
  const [only, another] = near ?? [];
  if (!only || another) return [issue];
  return only.flatMap((it) =>
    ofNearestAlternative({ ...it, path: [...(issue.path ?? []), ...(it.path ?? [])] }),
  );
}

function keysOf(issue: StandardIssue): PropertyKey[] {
  return (issue.path ?? []).map((part) => (typeof part === "object" ? part.key : part));
}

/** Where the mistake stands: at the unknown key itself, not at what it is in. */
function lookedFor(issue: DetailedIssue): PropertyKey[] {
  return Array.isArray(issue.keys) && issue.keys.length > 0
    ? [...keysOf(issue), issue.keys[0]]
    : keysOf(issue);
}

function pathOf(issue: StandardIssue): string {
  return keysOf(issue)
    .map((key, index) =>
      typeof key === "number" ? `[${key}]` : index === 0 ? String(key) : `.${String(key)}`,
    )
    .join("");
}

/** The property names that a schema knows at a path, where it can tell (Standard JSON Schema). */
function knownKeys(schema: StandardSchema): (path: readonly PropertyKey[]) => readonly string[] {
  return (path) => {
    try {
      const root = schema["~standard"].jsonSchema?.input({ target: "draft-2020-12" }) as JsonNode | undefined;
      const node = path.reduce<JsonNode | undefined>((at, step) => below(deref(at, root), step), root);
      return Object.keys(deref(node, root)?.properties ?? {});
    } catch {
      // Not every schema can be told as JSON Schema; then there is only no suggestion.
      return [];
    }
  };
}

interface JsonNode {
  properties?: Record<string, JsonNode>;
  additionalProperties?: JsonNode | boolean;
  items?: JsonNode;
  $ref?: string;
  $defs?: Record<string, JsonNode>;
}

function below(node: JsonNode | undefined, step: PropertyKey): JsonNode | undefined {
  if (typeof step === "number") return node?.items;
  const rest = node?.additionalProperties;
  return node?.properties?.[String(step)] ?? (typeof rest === "object" ? rest : undefined);
}

function deref(node: JsonNode | undefined, root: JsonNode | undefined): JsonNode | undefined {
  const name = /^#\/\$defs\/(.+)$/.exec(node?.$ref ?? "")?.[1];
  return name === undefined ? node : root?.$defs?.[name];
}
