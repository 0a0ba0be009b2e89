import type { Command } from "commander";
import { Option } from "commander";
import type { CommandHandler } from "./invocation.js";
import { port } from "./option-values.js";

/** Loads a command when it is run, and runs it. */
export type Runner = (
  load: () => Promise<CommandHandler<never>>,
) => (...commanderArguments: unknown[]) => Promise<void>;

/** What every command that prints data takes. */
export const json = () => new Option("--json", "print JSON instead of text");

export function declareDaemonCommands(program: Command, run: Runner): void {
  program.commandsGroup("The daemon:");
  program
    .command("start")
    .description("start the daemon; returns when it is ready")
    .option("--foreground", "stay in the foreground, with the log on standard error")
    .option(
      "--config <file>",
      "the config file (default: searched in the current folder and the usual places)",
    )
    .option("--port <number>", "the port to listen on; 0 takes any", port)
    .option("--fresh", "start the config's agents only")
    .addOption(json())
    .action(run(() => import("./commands/start.js").then((it) => it.start)));
  program
    .command("stop")
    .description("stop the daemon; returns when it is gone")
    .option("--keep-agents", "let the agents run on; the next daemon takes them over")
    .addOption(json())
    .action(run(() => import("./commands/stop.js").then((it) => it.stop)));
  program
    .command("restart")
    .description("replace the daemon while agents run on")
    .addOption(json())
    .action(run(() => import("./commands/restart.js").then((it) => it.restart)));
  program
    .command("reload")
    .description("read the config and the templates again")
    .addOption(json())
    .action(run(() => import("./commands/reload.js").then((it) => it.reload)));
  program
    .command("status")
    .description("say whether the daemon runs, and how it is")
    .addOption(json())
    .action(run(() => import("./commands/status.js").then((it) => it.status)));
}

export function declareSetupCommands(program: Command, run: Runner): void {
  program.commandsGroup("Set-up:");
  const load = (name: "init" | "validate" | "mcp") =>
    run(() => import("./commands/setup.js").then((it) => it[name]));
  program
    .command("init")
    .description("write a config, a template and an agent to begin with")
    .argument("[folder]", "where (default: the current folder)")
    .addOption(
      new Option("--format <name>", "the config's format").choices(["yaml", "json", "ts"]).default("yaml"),
    )
    .option("--force", "write over files that are there")
    .addOption(json())
    .action(load("init"));
  program
    .command("validate")
    .description("check the config, its plugins and the templates; starts nothing")
    .option("--config <file>", "the config file (default: searched as at a start)")
    .addOption(json())
    .action(load("validate"));
  declareTemplateCommands(program, run);
  program
    .command("plugins")
    .description("list the daemon's plugins")
    .addOption(json())
    .action(run(() => import("./commands/plugins.js").then((it) => it.plugins)));
  program
    .command("token")
    .description("print where the operator's token lies")
    .option("--show", "print the token itself")
    .action(run(() => import("./commands/token.js").then((it) => it.token)))
    .command("rotate")
    .description("make a new operator token; the old one stops being valid at once")
    .action(run(() => import("./commands/token.js").then((it) => it.rotate)));
  program
    .command("mcp")
    .description("serve agents as tools over the Model Context Protocol, on standard input and output")
    .action(load("mcp"));
}

function declareTemplateCommands(program: Command, run: Runner): void {
  const templates = program
    .command("templates")
    .description("list the templates, or show one")
    .argument("[id]", "a template")
    .addOption(json())
    .action(run(() => import("./commands/templates.js").then((it) => it.templates)));
  templates
    .command("add")
    .description("add a template from a file, or replace it")
    .argument("<file>", "a JSON or YAML file; - reads standard input")
    .addOption(json())
    .action(run(() => import("./commands/templates.js").then((it) => it.add)));
  templates
    .command("rm")
    .description("remove templates")
    .argument("<id...>", "templates")
    .addOption(json())
    .action(run(() => import("./commands/templates.js").then((it) => it.rm)));
}
