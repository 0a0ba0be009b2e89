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

/** Starts an agent, and waits for its end where that is asked for. */
export const run: CommandHandler<RunOptions> = async (invocation) => {
  const { options, terminal } = invocation;
  const client = connect(invocation);
  const created = await client.agents.create(await inputOf(invocation, client));
  if (options.wait) {
    if (!options.json) terminal.warn(`${created.agent_id} was started; waiting for its end`);
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
  const words = operands.slice(0, operands.length - (command?.length ?? 0));
  const { id, param, label, env } = options;
  refuseMixtures(words, command, options);
  const common = {
    agent_id: id,
    labels: label,
    env,
    start: options.start ? undefined : false,
  };
  if (command) return { ...common, command: [...command], cwd };
  const [template_id = ""] = words;
  if (!param) return { ...common, template_id };
  const { document } = await client.templates.get(template_id);
  return { ...common, template_id, params: parseParams(param, document.params ?? {}) };
}

/** What commander cannot know: the words are a template, or a command, never both. */
function refuseMixtures(
  words: readonly string[],
  command: readonly string[] | undefined,
  { id, param, wait, start, timeout }: RunOptions,
): void {
  const wrong = (detail: string, hint: string) => {
    throw new OpenStarryError("input_invalid", { detail, hint });
  };
  if (!start && wait)
    wrong("--wait waits for an agent that --no-start does not start", "leave one of them out");
  if (timeout !== undefined && !wait) wrong("--timeout goes with --wait only", "add --wait, or leave it out");
  if (!command) {
    if (words.length === 1) return;
    wrong(
      words.length === 0 ? "no template is named" : `one template is expected, got ${words.join(" ")}`,
      "openstarry-daemon templates lists them; a command goes behind --",
    );
  }
  if (words.length > 0) wrong(`"${words[0]}" stands before --`, "give a template, or -- and a command");
  if (command?.length === 0)
    wrong("there is no command behind --", "give one, as in: run --id ID -- sleep 60");
  if (id === undefined) wrong("a command needs an id", "add --id ID before --");
  if (param) wrong("--param goes with a template only", "write the values into the command");
}
