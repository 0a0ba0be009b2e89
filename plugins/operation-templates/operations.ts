import { z } from "zod";
import {
  defineOperation,
  isOpenStarryError,
  OpenStarryError,
  type Operation,
  type PinnedTemplate,
  type PluginContext,
  type Principal,
  paramsJsonSchema,
  type TemplateDocument,
  type TemplateSource,
  templateSource,
} from "../../core/index.js";
import { deletedSchema, documentSchema, idInput, listSchema, putInput, writtenSchema } from "./schemas.js";
import { templatesTool } from "./tools.js";

/** `templates.list`, `templates.get`, `templates.put`, `templates.delete`. */
export function templateOperations(ctx: PluginContext): Operation<never>[] {
  const byId = "/templates/{template_id}";
  return [
    defineOperation({
      name: "templates.list",
      summary: "The templates that agents can be started from, and the documents that are not valid.",
      scope: "template:read",
      input: z.strictObject({}),
      output: listSchema,
      http: { method: "GET", path: "/templates" },
      tools: [templatesTool],
      async handler() {
        const { items, invalid } = await ctx.templates.list();
        return { items: items.map(summaryOf), invalid };
      },
    }),
    defineOperation({
      name: "templates.get",
      summary: "One template, as it was written.",
      scope: "template:read",
      input: idInput,
      output: documentSchema,
      http: { method: "GET", path: byId },
      async handler({ template_id }, { principal }) {
        const { revision, origin, document } = (await find(ctx, template_id)).found;
        return { template_id, revision, origin, document: shownTo(principal, document) };
      },
    }),
    defineOperation({
      name: "templates.put",
      summary: "Makes a template, or replaces it. Paths in it are absolute.",
      scope: "operator",
      input: putInput(ctx.templates),
      output: writtenSchema,
      http: {
        method: "PUT",
        path: byId,
        status: ({ created }: { created: boolean }) => (created ? 201 : 200),
      },
      handler: ({ template_id, ...document }) => put(ctx, template_id, { template_id, ...document }),
    }),
    defineOperation({
      name: "templates.delete",
      summary: "Deletes a template. Agents that were started from it keep their copy.",
      scope: "operator",
      input: idInput,
      output: deletedSchema,
      http: { method: "DELETE", path: byId },
      handler: ({ template_id }) => remove(ctx, template_id),
    }),
  ];
}

function summaryOf({ template, revision, origin }: PinnedTemplate) {
  const { template_id, description, requires, labels } = template;
  return { template_id, description, revision, origin, params: paramsJsonSchema(template), requires, labels };
}

/** The document, and the source that has it. Rejects with `not_found`, or `template_invalid`. */
async function find(
  ctx: PluginContext,
  templateId: string,
): Promise<{ found: TemplateDocument; source: TemplateSource }> {
  for (const source of ctx.use(templateSource)) {
    const found = await ask(source, templateId);
    if (found) return { found, source };
  }
  // Nobody has it: the kernel knows what else there is, and who could not be asked.
  const pinned = await ctx.templates.find(templateId).catch((error: unknown) => error);
  if (!isOpenStarryError(pinned))
    throw new OpenStarryError("not_found", { detail: `template ${templateId} is gone` });
  throw new OpenStarryError("not_found", {
    detail: pinned.message,
    ...(pinned.hint === undefined ? {} : { hint: pinned.hint }),
  });
}

/** A source that is down must not hide the others; one that says "invalid" has the template. */
async function ask(source: TemplateSource, templateId: string): Promise<TemplateDocument | undefined> {
  try {
    return await source.get(templateId);
  } catch (error) {
    if (isOpenStarryError(error) && error.code === "template_invalid") throw error;
    return undefined;
  }
}

/** The first source that has it, valid or not. */
async function holderOf(ctx: PluginContext, templateId: string): Promise<TemplateSource | undefined> {
  for (const source of ctx.use(templateSource)) {
    // One that answers that its document is not valid holds it.
    const has = await ask(source, templateId).catch(() => true);
    if (has) return source;
  }
  return undefined;
}

async function put(ctx: PluginContext, templateId: string, document: unknown) {
  const target = ctx.use(templateSource).find((source) => source.put);
  if (!target?.put) throw readOnly("no template source of this daemon can be written to");
  const holder = await holderOf(ctx, templateId);
  if (holder && holder !== target) throw heldBy(templateId, holder);
  const { revision, origin } = await target.put(templateId, document);
  return { template_id: templateId, revision, origin, created: holder === undefined };
}

async function remove(ctx: PluginContext, templateId: string) {
  const holder = await holderOf(ctx, templateId);
  // Says that there is none, and what there is.
  if (!holder) await find(ctx, templateId);
  if (await holder?.delete?.(templateId)) return { template_id: templateId, deleted: true as const };
  throw heldBy(templateId, holder);
}

function heldBy(templateId: string, holder: TemplateSource | undefined): OpenStarryError {
  return readOnly(`template ${templateId} comes from the source ${holder?.name}, which is not written to`);
}

function readOnly(detail: string): OpenStarryError {
  return new OpenStarryError("template_read_only", {
    detail,
    hint: "change it where it comes from, or choose another template_id",
  });
}

/** To an agent, the values of variables are not shown: they may be secrets of others. */
function shownTo(principal: Principal, document: unknown): Record<string, unknown> {
  const shown = { ...(document as Record<string, unknown>) };
  const { env } = shown;
  if (principal.kind !== "agent" || typeof env !== "object" || env === null) return shown;
  return { ...shown, env: Object.fromEntries(Object.keys(env).map((name) => [name, "***"])) };
}
