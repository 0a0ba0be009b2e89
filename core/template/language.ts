import { OpenStarryError } from "../contracts/errors.js";
import type { StandardSchema } from "../contracts/standard-schema.js";
import type { Template } from "../contracts/template.js";
import type { TemplateSection, TemplateValues } from "../contracts/template-section.js";
import type { PinnedTemplate, TemplateDocument } from "../contracts/template-source.js";
import { validateSync } from "../lib/validate.js";
import { documentSchema, sectionOf } from "./document-schema.js";
import { templateKeys } from "./keys.js";
import { checkDefaults } from "./params.js";
import { checkPlaceholders } from "./placeholders.js";

/** What templates can say: the kernel's keys, and the sections that plugins provide. Made once, when they are known. */
export interface TemplateLanguage {
  /** Of whole documents. */
  readonly schema: StandardSchema<unknown, Template>;
  /** Checks a document of any source. Throws `template_invalid`, which names origin and field. */
  parse(source: TemplateDocument): PinnedTemplate;
  /** Throws `template_invalid` where no agent can be started from the template here. */
  checkStart(pinned: PinnedTemplate, values?: TemplateValues): void;
}

/** Sections that records of version 0.1 have without their documents having had them. */
const FORMERLY_FILLED_IN = ["restart", "stop", "logs", "detach", "priority"];

/**
 * Puts the language together. `origins` names the plugin of each section that could be added, for templates that
 * have one whose plugin is absent.
 */
export function createTemplateLanguage(
  sections: Iterable<TemplateSection>,
  origins: ReadonlyMap<string, string> = new Map(),
): TemplateLanguage {
  const byName = new Map([...sections].map((section) => [section.name, section]));
  const schema = documentSchema([...byName.values()], (name) =>
    origins.has(name) ? missingSection(name) : undefined,
  );

  function missingSection(name: string): string {
    const plugin = origins.get(name);
    return `the section "${name}" needs a plugin that provides it${plugin === undefined ? "" : `; add ${plugin}`}`;
  }

  function parse(source: TemplateDocument): PinnedTemplate {
    const what = `template ${source.template_id} (${source.origin})`;
    const template = validateSync(schema, source.document, { code: "template_invalid", what });
    if (template.template_id !== source.template_id) {
      throw invalid(what, `template_id is "${template.template_id}", expected "${source.template_id}"`);
    }
    checkPlaceholders(template, byName.values(), what);
    if (source.baseDir === undefined) refuseRelativePaths(template, what);
    checkDefaults(template, what);
    return {
      template,
      sections: Object.keys(source.document as object).filter((key) => byName.has(key)),
      revision: source.revision,
      origin: source.origin,
      ...(source.baseDir === undefined ? {} : { baseDir: source.baseDir }),
    };
  }

  return {
    schema,
    parse,
    checkStart(pinned, values) {
      const { template, origin } = pinned;
      const missing = writtenSections(pinned).find((name) => !byName.has(name));
      if (missing !== undefined)
        throw invalid(`template ${template.template_id} (${origin})`, missingSection(missing));
      for (const section of byName.values()) {
        const value = sectionOf(template, section.name);
        if (value !== undefined) section.checkStart?.(value, pinned, values);
      }
    },
  };
}

function writtenSections({ template, sections }: PinnedTemplate): readonly string[] {
  if (sections) return sections;
  const others: string[] = ["removeAfterMs", ...FORMERLY_FILLED_IN];
  return Object.keys(template).filter((key) => !(key in templateKeys.shape) && !others.includes(key));
}

function refuseRelativePaths({ cwd, env_file, command }: Template, what: string): void {
  const paths = [cwd, ...env_file, command.includes("/") ? command : undefined];
  const relative = paths.find((path) => path !== undefined && !path.startsWith("/"));
  if (relative === undefined) return;
  throw invalid(what, `"${relative}" is relative`, "give an absolute path, or use a template file");
}

function invalid(what: string, problem: string, hint?: string): OpenStarryError {
  return new OpenStarryError("template_invalid", { detail: `${what}: ${problem}`, hint });
}
