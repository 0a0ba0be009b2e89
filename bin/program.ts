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
  /** Told the exit code of the command that ran. */
  done(exitCode: number): void;
}

/**
 * The whole command line. Every command is loaded only when it is run. Wrong usage is thrown as
 * `input_invalid`; help and version as commander's own error with exit code 0.
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
  const program = new Command("openstarry-daemon")
    .description("Starts, watches, restarts and ends the processes of AI agents.")
    .version(packageVersion(), "-v, --version", "print the version")
    .helpOption("-h, --help", "explain a command")
    .helpCommand(false)
    .option("--home <dir>", "the daemon's folder (default: $OPENSTARRY_HOME, else ~/.openstarry/daemon)")
    .configureHelp({ showGlobalOptions: true })
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

/** Commander takes "--" away; to `run` it makes the difference between a template and a command. */
function afterDashes(program: Command): Pick<Invocation, "afterDashes"> {
  const raw = (program as unknown as { rawArgs: string[] }).rawArgs;
  const cut = raw.indexOf("--");
  return cut === -1 ? {} : { afterDashes: raw.slice(cut + 1) };
}
