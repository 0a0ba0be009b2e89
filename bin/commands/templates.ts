import { readFile } from "node:fs/promises";
import { text } from "node:stream/consumers";
import { OpenStarryError } from "../../core/contracts/errors.js";
import type {
  TemplateInput,
  TemplateList,
  TemplateSummary,
} from "../../plugins/agent-manager-tool/client/client.js";
import { connect } from "../context.js";
import { EXIT } from "../exit-codes.js";
import type { CommandHandler } from "../invocation.js";
import { neutralise, neutraliseLines } from "../neutralise.js";
import type { Terminal } from "../output.js";
import { printError } from "../print-error.js";
import { table } from "../table.js";

interface Options {
  json?: boolean;
}

/** Lists the templates with their parameters, or shows one. */
export const templates: CommandHandler<Options> = async (invocation) => {
  const { operands, options, terminal } = invocation;
  const client = connect(invocation);
  const [templateId] = operands;
  if (templateId !== undefined) {
    const template = await client.templates.get(templateId);
    if (options.json || !terminal.isTTY) terminal.json(template);
    else terminal.print(neutraliseLines(JSON.stringify(template, undefined, 2)));
    return undefined;
  }
  const list = await client.templates.list();
  if (options.json) terminal.json(list);
  else printList(terminal, list);
  return undefined;
};

function printList(terminal: Terminal, { items, invalid }: TemplateList): void {
  if (items.length === 0 && invalid.length === 0) {
    terminal.print("No templates.");
    return;
  }
  const lines = table(terminal, items, [
    { header: "TEMPLATE", value: ({ template_id }) => template_id, style: () => ["bold"] },
    { header: "PARAMS", value: paramsOf },
    { header: "ABOUT", value: ({ description }) => description || undefined, flexible: true },
  ]);
  for (const line of lines) terminal.print(line);
  for (const { origin, error } of invalid) {
    terminal.warn(`${terminal.style("invalid:", "bold", "yellow")} ${neutralise(`${origin}: ${error}`)}`);
  }
}

/** Lists parameters: `question folder?`, where "?" marks optional ones. */
function paramsOf({ params: { properties, required } }: TemplateSummary): string | undefined {
  const names = Object.keys(properties).map((name) => (required.includes(name) ? name : `${name}?`));
  return names.join(" ") || undefined;
}

/** Adds or replaces a template from a JSON or YAML file. */
export const add: CommandHandler<Options> = async (invocation) => {
  const { operands, options, terminal } = invocation;
  const [file = ""] = operands;
  const document = await readDocument(file);
  const template = await connect(invocation).templates.put(document.template_id, document);
  if (options.json) terminal.json(template);
  else {
    const done = template.created ? "added" : "replaced";
    terminal.print(`${template.template_id}  ${terminal.style(done, "green")}`);
  }
  return undefined;
};

async function readDocument(file: string): Promise<TemplateInput> {
  const what = file === "-" ? "standard input" : file;
  const invalid = (detail: string, cause?: unknown) =>
    new OpenStarryError("template_invalid", {
      detail: `${what}: ${detail}`,
      hint: "give a file with a template as JSON or YAML",
      cause,
    });
  let content: string;
  try {
    content = file === "-" ? await text(process.stdin) : await readFile(file, "utf8");
  } catch (cause) {
    throw invalid((cause as Error).message, cause);
  }
  const { parseData } = await import("../../core/config/data-text.js");
  const { value: document } = await parseData(content, { format: "either", code: "template_invalid", what });
  const { template_id } = (document ?? {}) as { template_id?: unknown };
  if (typeof template_id !== "string") throw invalid("missing template_id");
  return document as TemplateInput;
}

/** Removes templates. Agents started from them keep running. */
export const rm: CommandHandler<Options> = async (invocation) => {
  const { operands, options, terminal } = invocation;
  const client = connect(invocation);
  const outcomes = await Promise.allSettled(operands.map((id) => client.templates.delete(id)));
  const removed = operands.filter((_, index) => outcomes[index]?.status === "fulfilled");
  if (options.json) terminal.json({ removed });
  else for (const id of removed) terminal.print(`${id}  ${terminal.style("removed", "dim")}`);
  let exitCode: number = EXIT.done;
  for (const outcome of outcomes) {
    if (outcome.status === "rejected") exitCode = printError(terminal, outcome.reason);
  }
  return exitCode;
};
