import { z } from "zod";
import { OpenStarryError } from "../contracts/errors.js";
import type { Template } from "../contracts/template.js";
import type { PinnedTemplate } from "../contracts/template-source.js";
import { validateSync } from "../lib/validate.js";

/** The JSON Schema of a template's parameters: those without a default are required. */
export function paramsJsonSchema(template: Pick<Template, "params">): Record<string, unknown> {
  return {
    type: "object",
    properties: template.params,
    required: Object.entries(template.params)
      .filter(([, schema]) => !("default" in schema))
      .map(([name]) => name),
    additionalProperties: false,
  };
}

function jsonSchema(schema: Record<string, unknown>, what: string) {
  try {
    return z.fromJSONSchema(schema as Parameters<typeof z.fromJSONSchema>[0]);
  } catch (cause) {
    throw new OpenStarryError("template_invalid", {
      detail: `${what}: ${cause instanceof Error ? cause.message : String(cause)}`,
      hint: "every entry of params is a JSON Schema, such as { type: string, default: ./inbox }",
      cause,
    });
  }
}

/** A default that does not fit its own schema would reach the agent unchecked. */
export function checkDefaults(template: Pick<Template, "params">, what: string): void {
  for (const [name, { default: value, ...schema }] of Object.entries(template.params)) {
    const checked = jsonSchema(schema, `${what}: params.${name}`);
    if (value === undefined) continue;
    validateSync(checked, value, { code: "template_invalid", what: `${what}: params.${name}.default` });
  }
}

/**
 * Fills in defaults and checks. Rejects with `params_invalid`, naming what is wrong; the hint tells every
 * parameter that the template takes.
 */
export function parseParams(
  pinned: PinnedTemplate,
  params: Record<string, unknown>,
): Record<string, unknown> {
  const { template } = pinned;
  const expected = Object.entries(template.params).map(
    ([name, schema]) => `${name} (${typeText(schema)}, ${"default" in schema ? "optional" : "required"})`,
  );
  const schema = jsonSchema(paramsJsonSchema(template), `template ${template.template_id}`);
  return validateSync(schema, params, {
    code: "params_invalid",
    what: `params of ${template.template_id}`,
    hint: expected.length > 0 ? `it takes ${expected.join(", ")}` : "it takes no parameters",
  }) as Record<string, unknown>;
}

function typeText({ enum: values, const: constant, type }: Record<string, unknown>): string {
  if (Array.isArray(values)) return values.map((value) => JSON.stringify(value)).join(" or ");
  if (constant !== undefined) return JSON.stringify(constant);
  return Array.isArray(type) ? type.join(" or ") : String(type ?? "anything");
}
