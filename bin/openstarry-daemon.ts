#!/usr/bin/env node
import { CommanderError } from "commander";
import { EXIT } from "./exit-codes.js";
import { createTerminal } from "./output.js";
import { printError } from "./print-error.js";
import { createProgram } from "./program.js";

/** Runs the command line and answers the exit code. */
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
    // Exit code 0: --help or --version was given. Otherwise help was printed because of wrong usage.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
    // Node names the file of a syntax error only if the error is not caught.
    if (error instanceof SyntaxError) throw error;
    return printError(terminal, error);
  }
}

// `openstarry-daemon list | head`: the reader may close the pipe early.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  process.exit(error.code === "EPIPE" ? EXIT.done : EXIT.failed);
});

const exitCode = await main(process.argv.slice(2));
// Exit although connections are kept alive, but only after all output was written.
process.stdout.write("", () => process.exit(exitCode));
