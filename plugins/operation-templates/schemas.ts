import { z } from "zod";
import { idSchema, type StandardSchema, type TemplateLookup } from "../../core/index.js";

export const idInput = z.strictObject({ template_id: idSchema });

const named = {
  template_id: z.string(),
  revision: z.string().meta({ description: "Changes when the document does." }),
  origin: z.string().meta({ description: "Where it comes from: a file, an address." }),
};

export const listSchema = z.object({
  items: z.array(
    z
      .object({
        ...named,
        description: z.string(),
        params: z.record(z.string(), z.unknown()).meta({ description: "A JSON Schema of all parameters." }),
        requires: z.array(z.string()),
        labels: z.record(z.string(), z.string()),
      })
      .meta({ id: "TemplateSummary" }),
  ),
  invalid: z
    .array(z.object({ origin: z.string(), template_id: z.string().optional(), error: z.string() }))
    .meta({ description: "Documents that no agent can be started from, and why." }),
});

export const documentSchema = z.object({
  ...named,
  document: z.record(z.string(), z.unknown()).meta({ description: "As it was written." }),
});

export const writtenSchema = z.object({ ...named, created: z.boolean() });

export const deletedSchema = z.object({ template_id: z.string(), deleted: z.literal(true) });

const anyDocument = z.looseObject({ template_id: idSchema });

/**
 * Described as a template, and taken as any document: it is kept as it was written, and checked where it
 * is, with its own error code.
 */
export function putInput(templates: TemplateLookup): StandardSchema<unknown, z.output<typeof anyDocument>> {
  return {
    "~standard": {
      ...anyDocument["~standard"],
      get jsonSchema() {
        return templates.schema["~standard"].jsonSchema;
      },
    },
  };
}
