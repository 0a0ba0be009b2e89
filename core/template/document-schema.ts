import { OpenStarryError } from "../contracts/errors.js";
import type { StandardIssue, StandardResult, StandardSchema } from "../contracts/standard-schema.js";
import type { Template } from "../contracts/template.js";
import type { TemplateSection } from "../contracts/template-section.js";
import { templateKeys, templateKeysSchema } from "./keys.js";

type Json = Record<string, unknown>;
type Issue = StandardIssue & { readonly keys?: unknown };
type JsonSchemaOptions = { target: "draft-2020-12" };

/** The schema of whole documents: the kernel's keys and these sections. */
export function documentSchema(
  sections: readonly TemplateSection[],
  missing: (name: string) => string | undefined,
): StandardSchema<unknown, Template> {
  for (const { name } of sections) refuseName(name);
  const names = new Set(sections.map(({ name }) => name));
  return {
    "~standard": {
      version: 1,
      vendor: "openstarry",
      validate(document) {
        const keys = check(templateKeysSchema, withoutKeys(document, names), "the keys of templates");
        const issues = (keys.issues ?? []).flatMap((issue) => withoutMissing(issue, missing));
        const values: Json = {};
        for (const section of sections) {
          const written = isObject(document) ? document[section.name] : undefined;
          const value = written === undefined ? section.default : written;
          if (value === undefined) continue;
          const result = check(section.schema, value, `the section ${section.name}`);
          if (result.issues) issues.push(...result.issues.map((issue) => below(section.name, issue)));
          else values[section.name] = result.value;
        }
        if (keys.issues || issues.length > 0) return { issues };
        return combined(sections, { ...keys.value, ...values } as unknown as Template);
      },
      jsonSchema: {
        input: (options) => jsonSchema(sections, options),
        output: (options) => jsonSchema(sections, options),
      },
    },
  };
}

/** What the sections say of each other. */
function combined(sections: readonly TemplateSection[], template: Template): StandardResult<Template> {
  const issues = sections.flatMap((section): StandardIssue[] => {
    const value = sectionOf(template, section.name);
    const message = value === undefined ? undefined : section.check?.(value, template);
    return message === undefined ? [] : [{ path: [section.name], message }];
  });
  if (issues.length > 0) return { issues };
  const completed = sections.flatMap((section) =>
    section.complete ? [[section.name, section.complete(sectionOf(template, section.name), template)]] : [],
  );
  const entries = Object.entries({ ...template, ...Object.fromEntries(completed) });
  const whole = Object.fromEntries(entries.filter(([, value]) => value !== undefined));
  return { value: whole as unknown as Template };
}

export function sectionOf(template: Template, name: string): unknown {
  return (template as unknown as Json)[name];
}

function refuseName(name: string): void {
  if (/^[a-z][a-z0-9_]{0,62}$/.test(name) && !Object.hasOwn(templateKeys.shape, name)) return;
  throw new OpenStarryError("plugin_invalid", {
    detail: `a template section cannot be named "${name}"`,
    hint: "use a-z 0-9 _ beginning with a letter, and no key that every template has",
  });
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function withoutKeys(document: unknown, names: ReadonlySet<string>): unknown {
  if (!isObject(document)) return document;
  return Object.fromEntries(Object.entries(document).filter(([key]) => !names.has(key)));
}

function check<O>(schema: StandardSchema<unknown, O>, value: unknown, what: string): StandardResult<O> {
  const result = schema["~standard"].validate(value);
  if (result instanceof Promise) throw new TypeError(`the schema of ${what} is asynchronous`);
  return result;
}

function below(name: string, issue: StandardIssue): StandardIssue {
  return { ...issue, path: [name, ...(issue.path ?? [])] };
}

/** Keys that a plugin would know are no misspelt ones. */
function withoutMissing(issue: Issue, missing: (name: string) => string | undefined): Issue[] {
  if (!Array.isArray(issue.keys)) return [issue];
  const keys: string[] = issue.keys;
  const unknown = keys.filter((key) => missing(key) === undefined);
  return [
    ...keys.flatMap((key) => missing(key) ?? []).map((message) => ({ path: [], message })),
    ...(unknown.length > 0 ? [{ ...issue, keys: unknown }] : []),
  ];
}

/** One JSON Schema of all: as a definition, so that documents that quote it can share it. */
function jsonSchema(sections: readonly TemplateSection[], options: JsonSchemaOptions): Json {
  const { $schema, ...own } = jsonSchemaOf(templateKeys, options);
  const properties = { ...(own["properties"] as Json) };
  let definitions: Json = {};
  for (const { name, description, schema, default: value } of sections) {
    // References start at the root of the document: definitions of two sections must not meet there.
    const text = JSON.stringify(jsonSchemaOf(schema, options));
    const { $schema: _, $defs, ...section } = JSON.parse(text.replaceAll('"#/$defs/', `"#/$defs/${name}.`));
    const named = Object.entries(($defs ?? {}) as Json).map(([key, it]) => [`${name}.${key}`, it]);
    definitions = { ...definitions, ...Object.fromEntries(named) };
    properties[name] = { ...(value === undefined ? {} : { default: value }), ...section, description };
  }
  return {
    $schema,
    $ref: "#/$defs/Template",
    $defs: { Template: { ...own, properties }, ...definitions },
  };
}

/** Of a validator that cannot tell: anything. */
function jsonSchemaOf(schema: StandardSchema, options: JsonSchemaOptions): Json {
  return schema["~standard"].jsonSchema?.input(options) ?? {};
}
