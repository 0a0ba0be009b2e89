import type { Command } from "commander";
import { Option } from "commander";
import type { CommandHandler } from "./invocation.js";
import { port } from "./option-values.js";

/** Makes an action that loads a command and runs it. */
export type Runner = (
  load: () => Promise<CommandHandler<never>>,
) => (...commanderArguments: unknown[]) => Promise<void>;

/** The option of every command that prints data. */
export const json = () => new Option("--json", "print JSON instead of text");

export function declareDaemonCommands(program: Command, run: Runner): void {
  program.commandsGroup("Daemon:");
  program
    .command("start")
    .description("start the daemon and wait until it is ready")
    .option("--foreground", "stay in the foreground and log to standard error")
    .option("--config <file>", "config file (default: search the current folder and the usual places)")
    .option("--port <number>", "API port, overriding the config; 0 picks a free one", port)
    .option("--fresh", "start only the config's agents")
    .addOption(json())
    .action(run(() => import("./commands/start.js").then((it) => it.start)));
  program
    .command("stop")
    .description("stop the daemon and wait until it has exited")
    .option("--keep-agents", "keep agents running; the next daemon adopts them")
    .addOption(json())
    .action(run(() => import("./commands/stop.js").then((it) => it.stop)));
  program
    .command("restart")
    .description("replace the daemon while agents keep running")
    .addOption(json())
    .action(run(() => import("./commands/restart.js").then((it) => it.restart)));
  program
    .command("reload")
    .description("read the config and the templates again")
    .addOption(json())
    .action(run(() => import("./commands/reload.js").then((it) => it.reload)));
  program
    .command("status")
    .description("show daemon status and health")
    .addOption(json())
    .action(run(() => import("./commands/status.js").then((it) => it.status)));
}

export function declareSetupCommands(program: Command, run: Runner): void {
  program.commandsGroup("Setup:");
  const load = (name: "init" | "validate" | "mcp") =>
    run(() => import("./commands/setup.js").then((it) => it[name]));
  program
    .command("init")
    .description("create a starter config, template and agent")
    .argument("[folder]", "target folder (default: current folder)")
    .addOption(new Option("--format <name>", "config format").choices(["yaml", "json", "ts"]).default("yaml"))
    .option("--force", "overwrite existing files")
    .addOption(json())
    .action(load("init"));
  program
    .command("validate")
    .description("check the config, its plugins and the templates without starting anything")
    .option("--config <file>", "config file (default: search as for start)")
    .addOption(json())
    .action(load("validate"));
  declareTemplateCommands(program, run);
  program
    .command("plugins")
    .description("list plugins and their problems")
    .addOption(json())
    .action(run(() => import("./commands/plugins.js").then((it) => it.plugins)));
  program
    .command("token")
    .description("print the path of the operator token file")
    .option("--show", "print the token itself")
    .action(run(() => import("./commands/token.js").then((it) => it.token)))
    .command("rotate")
    .description("replace the operator token; the old one becomes invalid at once")
    .action(run(() => import("./commands/token.js").then((it) => it.rotate)));
  program
    .command("mcp")
    .description("serve agents as tools over the Model Context Protocol (stdio)")
    .action(load("mcp"));
}

function declareTemplateCommands(program: Command, run: Runner): void {
  const templates = program
    .command("templates")
    .description("list templates, or show one")
    .argument("[id]", "template ID")
    .addOption(json())
    .action(run(() => import("./commands/templates.js").then((it) => it.templates)));
  templates
    .command("add")
    .description("add or replace a template")
    .argument("<file>", "JSON or YAML file; - for standard input")
    .addOption(json())
    .action(run(() => import("./commands/templates.js").then((it) => it.add)));
  templates
    .command("rm")
    .description("remove templates")
    .argument("<id...>", "template IDs")
    .addOption(json())
    .action(run(() => import("./commands/templates.js").then((it) => it.rm)));
}
