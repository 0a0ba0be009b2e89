import { constants } from "node:os";
import type { Exit } from "../../core/index.js";

const SIGNAL_WORDS: Readonly<Record<string, string>> = {
  SIGKILL: "killed by SIGKILL, which cannot be refused",
  SIGTERM: "ended by SIGTERM, the usual request to end",
  SIGINT: "ended by SIGINT, as by Ctrl-C",
  SIGHUP: "ended by SIGHUP, as when a terminal is closed",
  SIGSEGV: "crashed: it used memory that is not its own (SIGSEGV)",
  SIGBUS: "crashed: a memory access went wrong (SIGBUS)",
  SIGABRT: "gave up by itself (SIGABRT), as after a failed assertion",
  SIGILL: "crashed: an instruction that this machine does not know (SIGILL)",
  SIGFPE: "crashed: a calculation went wrong (SIGFPE)",
  SIGPIPE: "wrote to something that nobody reads any more (SIGPIPE)",
  SIGXCPU: "used more CPU time than it may (SIGXCPU)",
  SIGXFSZ: "wrote a larger file than it may (SIGXFSZ)",
};

/** What shells and many programs mean by an exit code (POSIX, and BSD's sysexits.h). */
const CODE_WORDS: Readonly<Record<number, string>> = {
  1: "a failure",
  2: "a failure, often wrong usage or arguments",
  64: "wrong usage",
  65: "its input was wrong",
  66: "its input could not be opened",
  69: "something that it needs was not there",
  70: "an internal error",
  73: "it could not write its output",
  74: "an input/output error",
  75: "a failure that may pass",
  77: "it lacked permission",
  78: "its configuration was wrong",
  126: "a command was found but could not be executed",
  127: "a command was not found",
};

/** How a run ended, with what the number or signal means: `exit 137: killed by SIGKILL…`. */
export function exitInWords(exit: Exit): string {
  switch (exit.kind) {
    case "exited":
      return `exit ${exit.code}: ${codeInWords(exit.code, exit.success)}`;
    case "signaled":
      return exit.raw_status === undefined
        ? signalInWords(exit.signal)
        : `exit ${exit.raw_status}: ${signalInWords(exit.signal)}`;
    case "spawn_failed":
      return `could not be started: ${exit.error.detail} (${exit.error.code})`;
    case "lost":
      return "gone: it ended while nobody could see how";
  }
}

function codeInWords(code: number, success: boolean): string {
  if (code === 0) return success ? "success" : "it ended without an error, which was not what was wanted";
  if (success) return "counted as success";
  const signal = code > 128 ? signalOfNumber(code - 128) : undefined;
  // A shell that ran the program says so with 128 and the signal's number.
  if (signal) return `${signalInWords(signal)}; reported by a shell`;
  return CODE_WORDS[code] ?? "a failure of the program's own kind";
}

function signalInWords(signal: string): string {
  return SIGNAL_WORDS[signal] ?? `ended by ${signal}`;
}

function signalOfNumber(number: number): string | undefined {
  return Object.entries(constants.signals).find(([, value]) => value === number)?.[0];
}
