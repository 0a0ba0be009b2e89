import { createHash } from "node:crypto";
import { OpenStarryError, parseData, type TemplateDocument, type TemplateLookup } from "../../core/index.js";

/**
 * What the service sent for an id, checked whole: paths in it are absolute. The revision is the first 12
 * hexadecimal digits of the SHA-256 of the text. Rejects with `template_invalid`.
 */
export async function readDocument(
  templateId: string,
  text: string,
  { origin, templates }: { origin: string; templates: Pick<TemplateLookup, "parse"> },
): Promise<TemplateDocument> {
  const what = `template ${origin}`;
  const { value } = await parseData(text, { format: "json", code: "template_invalid", what });
  if (typeof value !== "object" || value === null) {
    throw new OpenStarryError("template_invalid", { detail: `${what}: expected an object` });
  }
  const document: TemplateDocument = {
    template_id: templateId,
    revision: createHash("sha256").update(text).digest("hex").slice(0, 12),
    document: value,
    origin,
  };
  templates.parse(document);
  return document;
}
