#!/usr/bin/env node
import { CommanderError } from "commander";
import { EXIT } from "./exit-codes.js";
import { createTerminal } from "./output.js";
import { printError } from "./print-error.js";
import { createProgram } from "./program.js";

/** The command: from the words of the command line to an exit code. */
async function main(argv: readonly string[]): Promise<number> {
  const terminal = createTerminal(process.stdout, process.stderr, process.env);
  let exitCode: number = EXIT.done;
  const done = (code: number) => {
    exitCode = code;
  };
  try {
    await createProgram({ terminal, env: process.env, done }).parseAsync([...argv], { from: "user" });
    return exitCode;
  } catch (error) {
    // Help and version were asked for and are printed; help that was not asked for means wrong usage.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
    // In which file something is no JavaScript, Node says only of what nobody catches.
    if (error instanceof SyntaxError) throw error;
    return printError(terminal, error);
  }
}

// `openstarry-daemon list | head`: whoever read has enough.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  process.exit(error.code === "EPIPE" ? EXIT.done : EXIT.failed);
});

const exitCode = await main(process.argv.slice(2));
// Connections that are kept open must not keep a finished command alive; its output has to be out.
process.stdout.write("", () => process.exit(exitCode));
