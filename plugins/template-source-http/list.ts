import { z } from "zod";
import { idSchema, OpenStarryError, parseData, validateSync } from "../../core/index.js";
import type { TemplateService } from "./service.js";

/** So many templates of a service are known, and kept; the rest of its list is not read. */
export const MAX_TEMPLATES = 1_000;
const MAX_PAGES = 100;
const MAX_PAGE_BYTES = 1024 * 1024;

/** What else an item holds is not looked at: its document has an address of its own. */
const pageSchema = z.object({
  items: z.array(z.object({ template_id: idSchema })).max(10_000),
  next_cursor: z.string().min(1).max(1_024).optional(),
});

/** The ids that the service lists; `undefined` when it has no list. Rejects as the service does. */
export async function readList(service: TemplateService): Promise<string[] | undefined> {
  const ids = new Set<string>();
  const what = `the list ${service.url}/templates`;
  let query = "";
  for (let page = 0; page < MAX_PAGES && ids.size < MAX_TEMPLATES; page++) {
    const answer = await service.ask({ path: `/templates${query}`, maxBytes: MAX_PAGE_BYTES });
    if (answer.kind === "absent" && page === 0) return undefined;
    if (answer.kind !== "found") throw gone(what);
    const { value } = await parseData(answer.text, { format: "json", code: "template_invalid", what });
    const { items, next_cursor } = validateSync(pageSchema, value, { code: "template_invalid", what });
    for (const { template_id } of items) ids.add(template_id);
    if (next_cursor === undefined) break;
    query = `?cursor=${encodeURIComponent(next_cursor)}`;
  }
  return [...ids].slice(0, MAX_TEMPLATES);
}

function gone(what: string): OpenStarryError {
  return new OpenStarryError("template_invalid", { detail: `${what}: a page that it names is not there` });
}
