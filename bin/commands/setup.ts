import { relative, resolve } from "node:path";
import { connect } from "../context.js";
import { EXIT } from "../exit-codes.js";
import type { CommandHandler } from "../invocation.js";
import { neutralise } from "../neutralise.js";
import { facts } from "../table.js";
import { packageVersion } from "../version.js";
import type { ConfigFormat } from "./init.js";

/** Creates a starter config, template and agent. */
export const init: CommandHandler<{ format: ConfigFormat; force?: boolean; json?: boolean }> = async (
  invocation,
) => {
  const { operands, options, terminal, cwd } = invocation;
  const folder = resolve(cwd, operands[0] ?? ".");
  const { initProject } = await import("./init.js");
  const { files } = await initProject({ folder, format: options.format, force: options.force ?? false });
  if (options.json) {
    terminal.json({ folder, files });
    return undefined;
  }
  for (const file of files) terminal.print(`${terminal.style("created", "green")}  ${file}`);
  const place = relative(cwd, folder);
  terminal.print("");
  terminal.print(`Next: ${place ? `cd ${place}, ` : ""}openstarry-daemon validate, openstarry-daemon start`);
  return undefined;
};

/** Checks a config, its plugins and the templates without starting anything. Exits with 2 if a start would fail. */
export const validate: CommandHandler<{ config?: string; json?: boolean }> = async (invocation) => {
  const { options, terminal, cwd, env, home } = invocation;
  const [{ validateConfig }, { builtins, renamedBuiltins }] = await Promise.all([
    import("./validate.js"),
    import("../../plugins/builtins.js"),
  ]);
  const report = await validateConfig({
    cwd,
    env,
    home,
    builtins,
    renamed: renamedBuiltins,
    configFile: options.config && resolve(cwd, options.config),
  });
  if (options.json) terminal.json(report);
  else {
    const some = (names: readonly string[]) => names.map(neutralise).join(", ") || "none";
    const lines = facts(terminal, [
      ["config", report.file ?? "none found"],
      ["agents", some(report.agents)],
      ["templates", some(report.templates)],
      ["plugins", some(report.plugins)],
    ]);
    for (const line of lines) terminal.print(line);
    for (const notice of report.notices) {
      terminal.warn(`${terminal.style("notice:", "bold", "yellow")} ${neutralise(notice)}`);
    }
    for (const problem of report.problems) {
      terminal.warn(`${terminal.style("problem:", "bold", "red")} ${neutralise(problem)}`);
    }
    if (report.problems.length === 0) terminal.print(terminal.style("Configuration is valid.", "green"));
  }
  return report.problems.length === 0 ? EXIT.done : EXIT.usage;
};

/** Serves this daemon's agents as tools to an MCP client, over standard input and output. */
export const mcp: CommandHandler = async (invocation) => {
  const { runMcp } = await import("./mcp.js");
  await runMcp({ client: connect(invocation, { patient: true }), version: packageVersion() });
  return undefined;
};
