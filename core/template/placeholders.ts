import { OpenStarryError } from "../contracts/errors.js";
import type { Template } from "../contracts/template.js";
import type { TemplateSection, TemplateValues } from "../contracts/template-section.js";
import { sectionOf } from "./document-schema.js";

const PLACEHOLDER = /\{\{([^{}]{1,100})\}\}/g;

/** The names in a text, without their braces. */
function placeholders(text: string): string[] {
  return [...text.matchAll(PLACEHOLDER)].map((match) => (match[1] ?? "").trim());
}

/** True where any text in the value has a placeholder. */
export function hasPlaceholders(value: unknown): boolean {
  return textsIn(value, "").some(([, text]) => placeholders(text).length > 0);
}

/** Answers the value with the placeholders in all its texts filled in. Throws as `expandPlaceholders`. */
export function fillPlaceholders(value: unknown, values: TemplateValues): unknown {
  if (typeof value === "string") return expandPlaceholders(value, values.agentId, values.params);
  if (Array.isArray(value)) return value.map((inner) => fillPlaceholders(inner, values));
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([key, inner]) => [key, fillPlaceholders(inner, values)]);
  return Object.fromEntries(entries);
}

/** Throws `template_invalid` for a placeholder that names no parameter. `what` is the template, for the message. */
export function checkPlaceholders(
  template: Template,
  sections: Iterable<TemplateSection>,
  what: string,
): void {
  const known = ["agent_id", ...Object.keys(template.params).map((name) => `params.${name}`)];
  for (const [field, text] of placeholderFields(template, sections)) {
    const unknown = placeholders(text).find((name) => !known.includes(name));
    if (unknown === undefined) continue;
    throw new OpenStarryError("template_invalid", {
      detail: `${what}: ${field}: unknown placeholder {{${unknown}}}`,
      hint: `declare it under params, or use one of: ${known.join(", ")}`,
    });
  }
}

/** The fields in which `{{…}}` is filled in, once, each staying one argument. */
function placeholderFields(template: Template, sections: Iterable<TemplateSection>): [string, string][] {
  const { args, env, cwd } = template;
  const ofSections = [...sections].filter(({ placeholders }) => placeholders);
  return [
    ...textsIn(args, "args"),
    ...textsIn(env, "env"),
    ...textsIn(cwd, "cwd"),
    ...ofSections.flatMap(({ name }) => textsIn(sectionOf(template, name), name)),
  ];
}

/** Every text in a value of JSON, with its place. */
function textsIn(value: unknown, place: string): [string, string][] {
  if (typeof value === "string") return [[place, value]];
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) =>
    textsIn(inner, Array.isArray(value) ? `${place}[${key}]` : `${place}.${key}`),
  );
}

/** What Linux takes as one argument or variable: 128 KiB, its end included. */
const MAX_ARGUMENT_BYTES = 131_071;

/**
 * Replaces `{{params.NAME}}` and `{{agent_id}}`; what comes out of a value is not looked at again. Lists and
 * objects become JSON. Rejects with `params_invalid` what no argument can carry.
 */
export function expandPlaceholders(
  text: string,
  agentId: string,
  params: Readonly<Record<string, unknown>>,
): string {
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
