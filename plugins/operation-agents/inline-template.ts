import { createHash } from "node:crypto";
import { isAbsolute } from "node:path";
import type { TemplateDocument } from "../../core/index.js";

/** The `template_id` of agents that were started from a command line. */
export const COMMAND_TEMPLATE = "command";

/**
 * A template for one agent, out of a command line. What looks like a placeholder in it is not one:
 * such an argument goes in as a parameter, whose value is never expanded.
 */
export function inlineTemplate(
  command: readonly string[],
  cwd: string | undefined,
): { template: TemplateDocument; params: Record<string, string> } {
  const params: Record<string, string> = {};
  const literal = (text: string, name: string) => {
    if (!text.includes("{{")) return text;
    params[name] = text;
    return `{{params.${name}}}`;
  };
  const [program = "", ...args] = command;
  const document = {
    template_id: COMMAND_TEMPLATE,
    command: program,
    args: args.map((text, index) => literal(text, `arg_${index}`)),
    ...(cwd === undefined ? {} : { cwd: isAbsolute(cwd) ? literal(cwd, "cwd") : cwd }),
    restart: { policy: "never" },
  };
  const declared = Object.fromEntries(Object.keys(params).map((name) => [name, { type: "string" }]));
  const text = JSON.stringify([command, cwd ?? ""]);
  return {
    template: {
      template_id: COMMAND_TEMPLATE,
      revision: createHash("sha256").update(text).digest("hex").slice(0, 12),
      document: { ...document, params: declared },
      origin: "request",
      // A program given as ./x is meant to be in the folder that it runs in.
      ...(cwd !== undefined && isAbsolute(cwd) ? { baseDir: cwd } : {}),
    },
    params,
  };
}
