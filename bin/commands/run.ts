import { OpenStarryError } from "../../core/contracts/errors.js";
import type { Client, CreateInput } from "../../plugins/agent-manager-tool/client/client.js";
import { paintState } from "../agent-view.js";
import { connect } from "../context.js";
import type { CommandHandler, Invocation } from "../invocation.js";
import { neutralise } from "../neutralise.js";
import { parseParams } from "../params.js";
import { waitForEnd } from "../wait-for-end.js";

export interface RunOptions {
  id?: string;
  param?: Record<string, string>;
  label?: Record<string, string>;
  env?: Record<string, string>;
  wait?: boolean;
  timeout?: string;
  start: boolean;
  json?: boolean;
}

/** Starts an agent; with `--wait`, waits until it has ended. */
export const run: CommandHandler<RunOptions> = async (invocation) => {
  const { options, terminal } = invocation;
  const client = connect(invocation);
  const created = await client.agents.create(await inputOf(invocation, client));
  if (options.wait) {
    if (!options.json) terminal.warn(`${created.agent_id} started; waiting until it has ended`);
    return waitForEnd(invocation, created.agent_id, { result: true });
  }
  if (options.json) terminal.json(created);
  else {
    const about = created.pid === undefined ? neutralise(created.reason ?? "") : `pid ${created.pid}`;
    terminal.print(`${created.agent_id}  ${paintState(terminal, created.state)}  ${about}`.trimEnd());
  }
  return undefined;
};

async function inputOf(
  { operands, afterDashes: command, options, cwd }: Invocation<RunOptions>,
  client: Client,
): Promise<CreateInput> {
  const templates = operands.slice(0, operands.length - (command?.length ?? 0));
  const { id, param, label, env } = options;
  refuseMixtures(templates, command, options);
  const common = {
    agent_id: id,
    labels: label,
    env,
    start: options.start ? undefined : false,
  };
  if (command) return { ...common, command: [...command], cwd };
  const [template_id = ""] = templates;
  if (!param) return { ...common, template_id };
  const { document } = await client.templates.get(template_id);
  return { ...common, template_id, params: parseParams(param, document.params ?? {}) };
}

/** Refuses what commander accepts: neither or both of a template and a command, and flags that exclude each other. */
function refuseMixtures(
  templates: readonly string[],
  command: readonly string[] | undefined,
  { id, param, wait, start, timeout }: RunOptions,
): void {
  const wrong = (detail: string, hint: string) => {
    throw new OpenStarryError("input_invalid", { detail, hint });
  };
  if (!start && wait) wrong("--wait cannot be combined with --no-start", "remove one of them");
  if (timeout !== undefined && !wait) wrong("--timeout requires --wait", "add --wait, or remove --timeout");
  if (!command) {
    if (templates.length === 1) return;
    wrong(
      templates.length === 0 ? "missing TEMPLATE" : `expected one template, got ${templates.length} words`,
      "list templates with: openstarry-daemon templates; put -- before a command",
    );
  }
  if (templates.length > 0)
    wrong(`unexpected "${templates[0]}" before --`, "give a template, or -- and a command");
  if (command?.length === 0)
    wrong("missing COMMAND after --", "add one, for example: run --id ID -- sleep 60");
  if (id === undefined) wrong("a command requires --id", "add --id ID before --");
  if (param) wrong("--param requires a template", "put the values into the command");
}
