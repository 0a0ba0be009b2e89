import type { InvalidTemplate, PinnedTemplate, TemplateSource } from "./contracts/template-source.js";
import { isOpenStarryError, nearest, OpenStarryError } from "./errors.js";
import { parseTemplate } from "./template.js";

/** The Agent Design Layer as the kernel sees it: all sources as one. */
export interface Templates {
  /** Rejects with `template_not_found` or `template_invalid`. */
  find(templateId: string): Promise<PinnedTemplate>;
  list(): Promise<{ items: PinnedTemplate[]; invalid: InvalidTemplate[] }>;
}

export function createTemplates(sources: () => readonly TemplateSource[]): Templates {
  async function list() {
    const items = new Map<string, PinnedTemplate>();
    const invalid: InvalidTemplate[] = [];
    for (const source of sources()) {
      const found = await source.list();
      invalid.push(...found.invalid);
      for (const document of found.documents) {
        if (items.has(document.template_id)) continue;
        items.set(document.template_id, parseTemplate(document));
      }
    }
    return { items: [...items.values()], invalid };
  }
  return {
    list,
    async find(templateId) {
      let failed: unknown;
      for (const source of sources()) {
        try {
          const document = await source.get(templateId);
          if (document) return parseTemplate(document);
        } catch (error) {
          if (isOpenStarryError(error) && error.code === "template_invalid") throw error;
          failed = error;
        }
      }
      const known = (await list()).items.map(({ template }) => template.template_id);
      const guess = nearest(templateId, known);
      throw new OpenStarryError("template_not_found", {
        detail: `there is no template "${templateId}"${failed ? "; and one source could not be asked" : ""}`,
        hint: `${guess ? `did you mean "${guess}"? ` : ""}known: ${known.slice(0, 20).join(", ") || "none"}`,
      });
    },
  };
}
