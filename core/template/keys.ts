import { z } from "zod";
import { ID_PATTERN } from "../contracts/agent.js";
import type { TemplateKeys } from "../contracts/template.js";
import { checkParamSchema } from "./param-schema.js";
import { duration } from "./unit-schemas.js";

export const idSchema = z
  .string()
  .regex(ID_PATTERN, "expected 1 to 63 letters, digits, '.', '_' or '-', not starting with '.' or '-'")
  .meta({ description: "1 to 63 of A-Z a-z 0-9 . _ - ; not starting with . or -" });

const envName = z
  .string()
  .max(200)
  .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, "expected a variable name: letters, digits and '_'")
  .refine((name) => !name.startsWith("OPENSTARRY_"), "names starting with OPENSTARRY_ are the daemon's own");

/** A string that can be an argument or a variable of a process. */
const osString = (max: number) =>
  z
    .string()
    .max(max)
    .refine((text) => !text.includes("\0"), "it holds a NUL character");

export const envSchema = z.record(envName, osString(131_071));

export const passEnvSchema = z
  .array(
    z
      .string()
      .regex(
        /^[A-Za-z_][A-Za-z0-9_]*\??$/,
        'expected a variable name, with "?" behind it when it is optional',
      )
      .refine(
        (name) => !name.startsWith("OPENSTARRY_"),
        "names starting with OPENSTARRY_ are the daemon's own",
      ),
  )
  .max(200);

export const labelsSchema = z.record(
  z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$/, "expected 1 to 63 letters, digits, '.', '_', '/' or '-'"),
  z.string().max(255),
);

/** The JSON Schema of one parameter. */
const paramSchema = z.looseObject({}).superRefine((schema, context) => {
  for (const { path, message } of checkParamSchema(schema)) {
    context.addIssue({ code: "custom", path, message });
  }
});

/** The keys of a template that belong to no plugin. */
export const templateKeys = z.strictObject({
  template_id: idSchema,
  description: z.string().max(2_000).default(""),
  command: osString(4_096).min(1).meta({ description: "A path, or a name found in PATH. No shell." }),
  args: z.array(osString(131_071)).max(1_000).default([]),
  cwd: osString(4_096).optional(),
  params: z.record(idSchema, paramSchema).default({}),
  env: envSchema.default({}),
  pass_env: passEnvSchema.default([]),
  env_file: z.array(osString(4_096)).max(20).default([]),
  user: z
    .string()
    .regex(/^[a-z_][a-z0-9_.-]{0,31}$/i, "expected a user name")
    .optional(),
  spawner: z.string().max(63).default("process"),
  requires: z
    .array(
      z
        .string()
        .regex(/^(agent:)?[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$/, 'expected a service name or "agent:ID"'),
    )
    .max(100)
    .default([]),
  success_exit_codes: z.array(z.int().min(0).max(255)).max(256).default([0]),
  remove_after: duration().optional(),
  labels: labelsSchema.default({}),
});

/** The same, as a template holds them. */
export const templateKeysSchema = templateKeys.transform(
  ({ remove_after: removeAfterMs, ...keys }): TemplateKeys => ({ ...keys, removeAfterMs }),
);
