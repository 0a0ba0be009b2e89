import { z } from "zod";
import {
  defineOperation,
  definePlugin,
  idSchema,
  OpenStarryError,
  operation,
  type PinnedTemplate,
  type PluginContext,
  paramsJsonSchema,
  type TemplateDocument,
  templateSource,
} from "../../core/index.js";

const idInput = z.strictObject({ template_id: idSchema });

/** Operations about the Agent Design Layer. */
export default definePlugin({
  name: "operation-templates",
  apiVersion: 1,
  provides: [operation],
  options: z.strictObject({}),
  setup(ctx) {
    for (const it of [listOperation(ctx), getOperation(ctx), putOperation(ctx), deleteOperation(ctx)]) {
      ctx.provide(operation, it);
    }
  },
});

function summaryOf({ template, revision, origin }: PinnedTemplate) {
  const { template_id, description, requires, labels } = template;
  return { template_id, description, revision, origin, params: paramsJsonSchema(template), requires, labels };
}

function listOperation(ctx: PluginContext) {
  return defineOperation({
    name: "templates.list",
    summary: "The templates that agents can be started from, and the documents that are not valid.",
    scope: "template:read",
    input: z.strictObject({}),
    output: z.object({
      items: z.array(z.looseObject({ template_id: z.string() })),
      invalid: z.array(z.looseObject({})),
    }),
    http: { method: "GET", path: "/templates" },
    async handler() {
      const { items, invalid } = await ctx.agents.templates();
      return { items: items.map(summaryOf), invalid };
    },
  });
}

/** The document itself, wherever in the chain it is. */
async function findDocument(ctx: PluginContext, templateId: string): Promise<TemplateDocument> {
  // Says what is wrong with it, or what else there is.
  const pinned = await ctx.agents.findTemplate(templateId).catch((error) => {
    throw error.code === "template_not_found"
      ? new OpenStarryError("not_found", { detail: error.message, hint: error.hint })
      : error;
  });
  for (const source of ctx.use(templateSource)) {
    const document = await source.get(templateId).catch(() => undefined);
    if (document?.origin === pinned.origin) return document;
  }
  throw new OpenStarryError("not_found", { detail: `template ${templateId} is gone` });
}

function getOperation(ctx: PluginContext) {
  return defineOperation({
    name: "templates.get",
    summary: "One template, as it was written.",
    scope: "template:read",
    input: idInput,
    http: { method: "GET", path: "/templates/{template_id}" },
    async handler({ template_id }) {
      const { revision, origin, document } = await findDocument(ctx, template_id);
      return { template_id, revision, origin, document };
    },
  });
}

function putOperation(ctx: PluginContext) {
  return defineOperation({
    name: "templates.put",
    summary: "Makes or replaces a template. Paths in it are absolute.",
    scope: "operator",
    input: z.looseObject({ template_id: idSchema }),
    http: {
      method: "PUT",
      path: "/templates/{template_id}",
      status: statusOfPut,
    },
    async handler({ template_id, ...body }) {
      const { put, source } = writable(ctx);
      const created = (await source.get(template_id).catch(() => undefined)) === undefined;
      const { revision, origin } = await put(template_id, { template_id, ...body });
      return { template_id, revision, origin, created };
    },
  });
}

function statusOfPut(answer: { created: boolean }): number {
  return answer.created ? 201 : 200;
}

function deleteOperation(ctx: PluginContext) {
  return defineOperation({
    name: "templates.delete",
    summary: "Deletes a template; agents that were started from it keep their copy.",
    scope: "operator",
    input: idInput,
    http: { method: "DELETE", path: "/templates/{template_id}" },
    async handler({ template_id }) {
      await findDocument(ctx, template_id).catch((error) => {
        // What is not valid can be deleted, too.
        if (error.code !== "template_invalid") throw error;
      });
      for (const source of ctx.use(templateSource)) {
        if (await source.delete?.(template_id)) return { template_id, deleted: true };
      }
      throw new OpenStarryError("template_read_only", {
        detail: `template ${template_id} is not one that was made by PUT`,
        hint: "delete its file",
      });
    },
  });
}

/** The first source that can be written to. */
function writable(ctx: PluginContext) {
  const source = ctx.use(templateSource).find((it) => it.put);
  if (source?.put) return { source, put: source.put.bind(source) };
  throw new OpenStarryError("template_read_only", {
    detail: "no template source of this daemon can be written to",
    hint: "change the templates where they come from",
  });
}
