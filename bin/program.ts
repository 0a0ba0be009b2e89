import { Command, type CommanderError } from "commander";
import { OpenStarryError } from "../core/contracts/errors.js";
import { isAgentOf, resolveHome } from "./daemon/home.js";
import { declareAgentCommands, declareAgentVerbs } from "./declare-agent-commands.js";
import { declareDaemonCommands, declareSetupCommands, type Runner } from "./declare-commands.js";
import type { CommandHandler, Invocation } from "./invocation.js";
import type { Terminal } from "./output.js";
import { adaptUsageError, commandPath } from "./usage.js";
import { packageVersion } from "./version.js";

export interface ProgramIo {
  terminal: Terminal;
  env: NodeJS.ProcessEnv;
  /** Called with the exit code of the command that ran. */
  done(exitCode: number): void;
}

/**
 * Declares the whole command line; each command is loaded when it is run. Rejects with `input_invalid` for wrong
 * usage, and with commander's own error and exit code 0 after help and version.
 */
export function createProgram(io: ProgramIo): Command {
  const run: Runner =
    (load) =>
    async (...commanderArguments) => {
      const command = commanderArguments.at(-1) as Command;
      const { home, ...options } = command.optsWithGlobals();
      const handler = (await load()) as unknown as CommandHandler;
      const invocation = {
        operands: command.args,
        ...afterDashes(program),
        options,
        asAgent: home === undefined && isAgentOf(resolveHome(undefined, io.env), io.env),
        cwd: process.cwd(),
        home: resolveHome(home as string | undefined, io.env),
        terminal: io.terminal,
        env: io.env,
      };
      io.done((await handler(invocation)) ?? 0);
    };
  const program: Command = new Command("openstarry-daemon")
    .description("Supervise AI agents: start, watch, restart and stop their processes.")
    .version(packageVersion(), "-v, --version", "print the version")
    .helpOption("-h, --help", "show help")
    .helpCommand(false)
    .option("--home <dir>", "daemon folder (default: $OPENSTARRY_HOME, or ~/.openstarry/daemon)")
    .configureHelp({
      showGlobalOptions: true,
      // By default those of every parent, so that "templates add" would list --json of "templates" once more.
      visibleGlobalOptions: (command) => (command === program ? [] : [...program.options]),
    })
    .configureOutput({ outputError: () => {} })
    .showSuggestionAfterError();
  declareDaemonCommands(program, run);
  declareAgentCommands(program, run);
  declareAgentVerbs(program, run);
  declareSetupCommands(program, run);
  everyCommand(program, (command) => command.exitOverride((error) => rethrow(error, command)));
  return program;
}

function everyCommand(command: Command, visit: (command: Command) => void): void {
  visit(command);
  for (const child of command.commands) everyCommand(child, visit);
}

function rethrow(error: CommanderError, command: Command): never {
  if (error.exitCode === 0 || error.code === "commander.help") throw error;
  const { detail, hint } = adaptUsageError(error.message, commandPath(command));
  throw new OpenStarryError("input_invalid", { detail, hint });
}

/** Finds the operands after "--", which commander drops: for `run` they are a command, not a template. */
function afterDashes(program: Command): Pick<Invocation, "afterDashes"> {
  const raw = (program as unknown as { rawArgs: string[] }).rawArgs;
  const cut = raw.indexOf("--");
  return cut === -1 ? {} : { afterDashes: raw.slice(cut + 1) };
}
