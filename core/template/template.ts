import { z } from "zod";
import { ID_PATTERN } from "../contracts/agent.js";
import { OpenStarryError } from "../contracts/errors.js";
import type { PinnedTemplate, TemplateDocument } from "../contracts/template-source.js";
import { validateSync } from "../lib/validate.js";
import { checkParamSchema } from "./param-schema.js";
import { placeholders } from "./placeholders.js";
import { resourcesSchema } from "./resources.js";
import { duration, size } from "./unit-schemas.js";

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

/** Signals that a template may name. */
const SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGKILL"] as const;

const seconds = (count: number) => count * 1_000;

/** The JSON Schema of one parameter. */
const paramSchema = z.looseObject({}).superRefine((schema, context) => {
  for (const { path, message } of checkParamSchema(schema)) {
    context.addIssue({ code: "custom", path, message });
  }
});

const DEFAULT_MAX_BACKOFF_MS = seconds(60);

/** When to start again what ended; read by the restart policy. Times in milliseconds. */
const restartSchema = z
  .strictObject({
    policy: z.enum(["never", "on-failure", "always"]).default("on-failure"),
    max_restarts: z.int().min(0).max(1_000_000).default(5),
    period: duration().default(seconds(60)),
    backoff: z
      .strictObject({ min: duration().default(seconds(1)), max: duration().optional() })
      .refine(({ min, max }) => max === undefined || max >= min, {
        path: ["max"],
        message: "it is less than min",
      })
      .transform(({ min, max }) => ({ minMs: min, maxMs: max ?? Math.max(min, DEFAULT_MAX_BACKOFF_MS) }))
      .prefault({}),
  })
  .transform(({ period, ...rest }) => ({ ...rest, periodMs: period }));
export type RestartRules = z.output<typeof restartSchema>;

/** `type` names a probe; what else stands here is the probe's own. */
const probeSection = z.looseObject({ type: z.string().max(63) });
const readinessSection = probeSection.extend({ timeout: duration().optional() });
const startupSection = z.strictObject({ timeout: duration() });

const DEFAULT_START_MS = seconds(60);

/**
 * What makes a start-up complete, and how long it may take. An agent that declares `startup` and no
 * readiness is ready when its liveness probe is content for the first time.
 */
function readinessOf(sections: {
  startup?: z.output<typeof startupSection> | undefined;
  readiness?: z.output<typeof readinessSection> | undefined;
  liveness?: z.output<typeof probeSection> | undefined;
}) {
  const declared = sections.readiness?.type === "none" ? undefined : sections.readiness;
  const wanted = declared ?? (sections.startup && sections.liveness);
  if (!wanted) return undefined;
  const { timeout: _, ...section } = wanted;
  const timeoutMs = declared?.timeout ?? sections.startup?.timeout ?? DEFAULT_START_MS;
  return { ...section, timeoutMs };
}

/**
 * Signals that wake an agent which does not get on: none that ends a program which does not know it,
 * unless the template asks for that one.
 */
const NUDGES = ["SIGCONT", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGWINCH"] as const;

const progressSection = z
  .strictObject({
    deadline: duration({ min: "1s" }),
    grace: duration().default(seconds(60)),
    nudge: z.enum(NUDGES).default("SIGCONT"),
  })
  .transform(({ deadline, grace, nudge }) => ({
    deadlineMs: deadline,
    graceMs: grace,
    nudge: nudge as string,
  }));
/** What is done about an agent that does not get on; read by whoever provides `probeRunner`. */
export type ProgressRules = z.output<typeof progressSection>;

/** What an agent and all below it may use, by what they report. */
const budgetSection = z
  .strictObject({
    tokens_max: z.int().min(1).optional(),
    cost_max_usd: z.number().positive().max(1_000_000_000).optional(),
    on_exceed: z.enum(["warn", "stop"]).default("stop"),
  })
  .refine(({ tokens_max, cost_max_usd }) => tokens_max !== undefined || cost_max_usd !== undefined, {
    message: "it limits nothing: set tokens_max, cost_max_usd or both",
  });
export type BudgetRules = z.output<typeof budgetSection>;

/** Below it, disk blocks and file names would outweigh the output. */
const SMALLEST_LOG_BYTES = 64 * 1_024;

/** The template document (a YAML or JSON file, or a `PUT` body) and what it becomes. */
export const templateSchema = z
  .strictObject({
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
    startup: startupSection.optional(),
    readiness: readinessSection.optional(),
    liveness: probeSection.optional(),
    progress: progressSection.optional(),
    restart: restartSchema.prefault({}),
    success_exit_codes: z.array(z.int().min(0).max(255)).max(256).default([0]),
    stop: z
      .strictObject({ signal: z.enum(SIGNALS).default("SIGTERM"), grace: duration().default(seconds(10)) })
      .transform(({ signal, grace }) => ({ signal: signal as string, graceMs: grace }))
      .prefault({}),
    resources: resourcesSchema.optional(),
    budget: budgetSection.optional(),
    children: z
      .strictObject({
        max: z.int().min(1).max(10_000).default(8),
        depth: z.int().min(1).max(100).default(1),
        on_exit: z.enum(["stop", "reparent"]).default("stop"),
      })
      .optional(),
    detach: z.boolean().default(false),
    priority: z.int().min(-1_000).max(1_000).default(0),
    logs: z
      .strictObject({
        max_size: size()
          .pipe(z.int().min(SMALLEST_LOG_BYTES, "expected at least 64KiB"))
          .default(10 * 2 ** 20),
        keep: z.int().min(0).max(1_000).default(5),
        merge: z.boolean().default(false),
      })
      .transform(({ max_size, ...rest }) => ({ maxSizeBytes: max_size, ...rest }))
      .prefault({}),
    remove_after: duration().optional(),
    labels: labelsSchema.default({}),
  })
  .refine(({ startup, readiness, liveness }) => !startup || readinessOf({ startup, readiness, liveness }), {
    path: ["startup"],
    message: "nothing tells when the start-up is over: declare readiness or liveness",
  })
  .transform(({ remove_after, startup, readiness: declared, ...rest }) => {
    const readiness = readinessOf({ startup, readiness: declared, liveness: rest.liveness });
    return {
      ...rest,
      ...(readiness ? { readiness } : {}),
      ...(remove_after === undefined ? {} : { removeAfterMs: remove_after }),
    };
  })
  .meta({ id: "Template" });

/** A validated template: durations in milliseconds, sizes in bytes, defaults filled in. */
export type Template = z.output<typeof templateSchema>;
/** A template as people write it. */
export type TemplateInput = z.input<typeof templateSchema>;

/** Checks a document of any source. Errors carry `template_invalid` and name origin and field. */
export function parseTemplate(source: TemplateDocument): PinnedTemplate {
  const what = `template ${source.template_id} (${source.origin})`;
  const template = validateSync(templateSchema, source.document, { code: "template_invalid", what });
  const invalid = (detail: string, hint?: string) =>
    new OpenStarryError("template_invalid", { detail: `${what}: ${detail}`, ...(hint ? { hint } : {}) });
  if (template.template_id !== source.template_id) {
    throw invalid(`template_id is "${template.template_id}", expected "${source.template_id}"`);
  }
  for (const [field, text] of placeholderFields(template)) {
    for (const name of placeholders(text)) {
      if (
        name !== "agent_id" &&
        !(name.startsWith("params.") && Object.hasOwn(template.params, name.slice(7)))
      ) {
        throw invalid(
          `${field}: unknown placeholder {{${name}}}`,
          `declare it under params, or use one of: ${["agent_id", ...Object.keys(template.params).map((it) => `params.${it}`)].join(", ")}`,
        );
      }
    }
  }
  if (source.baseDir === undefined) {
    const relative = [
      template.cwd,
      ...template.env_file,
      template.command.includes("/") ? template.command : undefined,
    ];
    const first = relative.find((path) => path !== undefined && !path.startsWith("/"));
    if (first !== undefined)
      throw invalid(`"${first}" is relative`, "give an absolute path, or use a template file");
  }
  checkDefaults(template, what);
  return {
    template,
    revision: source.revision,
    origin: source.origin,
    ...(source.baseDir === undefined ? {} : { baseDir: source.baseDir }),
  };
}

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
function checkDefaults(template: Template, what: string): void {
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

/** The fields in which `{{…}}` is expanded, once, each staying one argument. */
function placeholderFields(template: Template): [string, string][] {
  return [
    ...template.args.map((text, index): [string, string] => [`args[${index}]`, text]),
    ...Object.entries(template.env).map(([name, text]): [string, string] => [`env.${name}`, text]),
    ...(template.cwd === undefined ? [] : [["cwd", template.cwd] as [string, string]]),
    ...textsIn(template.readiness, "readiness"),
    ...textsIn(template.liveness, "liveness"),
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
