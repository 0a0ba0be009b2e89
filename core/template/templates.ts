import { isOpenStarryError, OpenStarryError, toOpenStarryError } from "../contracts/errors.js";
import type {
  InvalidTemplate,
  PinnedTemplate,
  TemplateDocument,
  TemplateLookup,
  TemplateSource,
} from "../contracts/template-source.js";
import { nearest } from "../lib/nearest.js";
import type { TemplateLanguage } from "./language.js";

/** The Agent Design Layer as the kernel sees it: all sources as one. */
export interface Templates extends TemplateLookup, Pick<TemplateLanguage, "checkStart"> {
  /** Has the sources read again what they only read at the start. */
  reload(): Promise<void>;
}

export interface TemplatesDeps {
  sources: () => readonly TemplateSource[];
  /** Known once all plugins are set up. */
  language: () => TemplateLanguage;
}

export function createTemplates({ sources, language }: TemplatesDeps): Templates {
  async function list() {
    const items = new Map<string, PinnedTemplate>();
    const invalid: InvalidTemplate[] = [];
    for (const source of sources()) {
      const found = await listOne(source);
      invalid.push(...found.invalid);
      for (const document of found.documents) {
        if (items.has(document.template_id)) continue;
        try {
          items.set(document.template_id, language().parse(document));
        } catch (error) {
          const { template_id, origin } = document;
          invalid.push({ template_id, origin, error: toOpenStarryError(error).message });
        }
      }
    }
    return { items: [...items.values()], invalid };
  }

  async function find(templateId: string): Promise<PinnedTemplate> {
    const unreachable: string[] = [];
    for (const source of sources()) {
      let document: TemplateDocument | undefined;
      try {
        document = await source.get(templateId);
      } catch (error) {
        // A source that is down must not hide the others; one that says "invalid" has the template.
        if (isOpenStarryError(error) && error.code === "template_invalid") throw error;
        unreachable.push(`${source.name} (${reasonOf(error)})`);
      }
      if (document) return language().parse(document);
    }
    throw notFound(templateId, await list(), unreachable);
  }

  return {
    find,
    list,
    parse: (document) => language().parse(document),
    get schema() {
      return language().schema;
    },
    checkStart: (pinned, values) => language().checkStart(pinned, values),
    async reload() {
      for (const source of sources()) await source.reload?.();
    },
  };
}

/** Says which templates there are, and which sources could not be asked. */
function notFound(
  templateId: string,
  { items, invalid }: Awaited<ReturnType<Templates["list"]>>,
  unreachable: readonly string[],
): OpenStarryError {
  const known = items.map(({ template }) => template.template_id);
  const guess = nearest(templateId, known);
  const more = known.length > 20 ? ` and ${known.length - 20} more` : "";
  const broken = invalid.length === 1 ? "1 document is" : `${invalid.length} documents are`;
  const these = [
    known.length > 0 ? `there are ${known.slice(0, 20).join(", ")}${more}` : "there are none yet",
    ...(invalid.length > 0 ? [`${broken} not valid, as the list of templates tells`] : []),
  ].join("; ");
  const down = unreachable.length > 0 ? `; these sources could not be asked: ${unreachable.join("; ")}` : "";
  return new OpenStarryError("template_not_found", {
    detail: `there is no template "${templateId}"${down}`,
    hint: guess ? `did you mean "${guess}"? ${these}` : these,
  });
}

/** A source that cannot be listed is itself one invalid entry. */
async function listOne(source: TemplateSource): Promise<Awaited<ReturnType<TemplateSource["list"]>>> {
  try {
    return await source.list();
  } catch (error) {
    const invalid = [{ origin: source.name, error: `it could not be asked: ${reasonOf(error)}` }];
    return { documents: [], invalid };
  }
}

/** What a library says about a failed connection often quotes its address, password and all. */
function reasonOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replaceAll(/\/\/[^\s/]*@/g, "//***@");
}
