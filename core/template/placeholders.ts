import { OpenStarryError } from "../contracts/errors.js";

const PLACEHOLDER = /\{\{([^{}]{1,100})\}\}/g;

/** The names in a text, without their braces. */
export function placeholders(text: string): string[] {
  return [...text.matchAll(PLACEHOLDER)].map((match) => (match[1] ?? "").trim());
}

/** The value with the placeholders in all its texts replaced. */
export function expandAll(value: unknown, expand: (text: string) => string): unknown {
  if (typeof value === "string") return expand(value);
  if (Array.isArray(value)) return value.map((inner) => expandAll(inner, expand));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, expandAll(inner, expand)]));
}

/** What Linux takes as one argument or variable: 128 KiB, its end included. */
const MAX_ARGUMENT_BYTES = 131_071;

/**
 * Replaces `{{params.NAME}}` and `{{agent_id}}`; what comes out of a value is not looked at again. Lists and
 * objects become JSON. Rejects with `params_invalid` what no argument can carry.
 */
export function expandPlaceholders(text: string, agentId: string, params: Record<string, unknown>): string {
  let longest = { name: "", bytes: 0 };
  const expanded = text.replace(PLACEHOLDER, (_, inner: string) => {
    const name = inner.trim();
    const value = name === "agent_id" ? agentId : (params[name.slice("params.".length)] ?? "");
    const made = typeof value === "string" ? value : JSON.stringify(value);
    if (made.includes("\0")) {
      throw new OpenStarryError("params_invalid", {
        detail: `${name} holds a NUL character, which no argument can carry`,
        hint: `give ${name} without it`,
      });
    }
    const bytes = Buffer.byteLength(made);
    if (bytes > longest.bytes) longest = { name, bytes };
    return made;
  });
  if (Buffer.byteLength(expanded) > MAX_ARGUMENT_BYTES) {
    throw new OpenStarryError("params_invalid", {
      detail: `${longest.name} has ${longest.bytes} bytes, and an argument can carry ${MAX_ARGUMENT_BYTES}`,
      hint: "give less of it; or let the template leave it out of args and env, and the agent read it from the file that OPENSTARRY_PARAMS_FILE names",
    });
  }
  return expanded;
}
