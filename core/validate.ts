import { type ErrorCode, nearest, OpenStarryError } from "./errors.js";
import type { StandardIssue, StandardSchema } from "./standard-schema.js";

export interface ValidateOptions {
  code: ErrorCode;
  /** What is being checked, for the message: `the input of agents.create`, `template file x.yaml`. */
  what: string;
  hint?: string;
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
  issues: readonly StandardIssue[],
  schema: StandardSchema,
  options: ValidateOptions,
): OpenStarryError {
  const known = knownKeys(schema);
  const lines = issues.slice(0, 10).map((issue) => describe(issue, known));
  if (issues.length > 10) lines.push(`and ${issues.length - 10} more`);
  return new OpenStarryError(options.code, {
    detail: `${options.what}: ${lines.join("; ")}`,
    ...(options.hint === undefined ? {} : { hint: options.hint }),
    data: { issues: issues.slice(0, 10).map((issue) => ({ path: pathOf(issue), message: issue.message })) },
  });
}

function describe(issue: StandardIssue, known: (path: string) => readonly string[]): string {
  const path = pathOf(issue);
  const unknownKeys = (issue as { keys?: unknown }).keys;
  if (Array.isArray(unknownKeys)) {
    const names = known(path);
    return unknownKeys
      .map((key) => {
        const guess = nearest(String(key), names);
        const full = path ? `${path}.${key}` : String(key);
        const help = guess ? `did you mean "${guess}"?` : names.length ? `known: ${names.join(", ")}` : "";
        return `unknown key "${full}"${help ? ` (${help})` : ""}`;
      })
      .join("; ");
  }
  const message = messageOf(issue);
  return path ? `${path}: ${message}` : message;
}

/** For a key that is not allowed the reason stands one level below. */
function messageOf(issue: StandardIssue): string {
  const [inner] = (issue as { issues?: StandardIssue[] }).issues ?? [];
  return inner?.message ?? issue.message;
}

function pathOf(issue: StandardIssue): string {
  return (issue.path ?? [])
    .map((part) => (typeof part === "object" ? part.key : part))
    .map((key, index) =>
      typeof key === "number" ? `[${key}]` : index === 0 ? String(key) : `.${String(key)}`,
    )
    .join("");
}

/** The property names that a schema knows at a path, where it can tell (Standard JSON Schema). */
function knownKeys(schema: StandardSchema): (path: string) => readonly string[] {
  return (path) => {
    try {
      let node = schema["~standard"].jsonSchema?.input({ target: "draft-2020-12" }) as JsonNode | undefined;
      for (const step of path.split(/[.[\]]+/).filter(Boolean)) {
        node = /^\d+$/.test(step) ? node?.items : node?.properties?.[step];
      }
      return Object.keys(node?.properties ?? {});
    } catch {
      // Not every schema can be told as JSON Schema; then there is only no suggestion.
      return [];
    }
  };
}

interface JsonNode {
  properties?: Record<string, JsonNode>;
  items?: JsonNode;
}
