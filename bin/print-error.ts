import { isOpenStarryError } from "../core/contracts/errors.js";
import { errorText } from "../core/lib/error-text.js";
import { hintForCommandLine } from "./cli-hints.js";
import { EXIT, exitCodeOf } from "./exit-codes.js";
import { neutraliseLines } from "./neutralise.js";
import type { Terminal } from "./output.js";

/** Prints an error as `error: …` and `hint: …` on standard error. Answers the exit code. */
export function printError(terminal: Terminal, error: unknown): number {
  if (isOpenStarryError(error)) {
    printProblem(terminal, error.message, error.hint);
    return exitCodeOf(error);
  }
  printProblem(terminal, `internal error: ${errorText(error)}`, undefined);
  if (error instanceof Error && error.stack) terminal.warn(neutraliseLines(error.stack));
  return EXIT.failed;
}

export function printProblem(terminal: Terminal, detail: string, hint: string | undefined): void {
  terminal.warn(`${terminal.style("error:", "bold", "red")} ${neutraliseLines(detail)}`);
  if (hint === undefined) return;
  terminal.warn(`${terminal.style("hint:", "bold")} ${neutraliseLines(hintForCommandLine(hint))}`);
}
