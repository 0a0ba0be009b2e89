import { constants } from "node:os";
import type { Exit } from "../../../core/index.js";

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

/**
 * How a run ended, with what the number or signal means: `status 143: ended by SIGTERM…`. What a shell
 * reports as 128 and a signal's number may as well be the program's own code: where nobody here sent that
 * signal, both are told.
 */
export function exitInWords(exit: Exit): string {
  switch (exit.kind) {
    case "exited":
      return `exit ${exit.code}: ${codeInWords(exit.code, exit.success)}`;
    case "signaled": {
      const { raw_status: status, signal, cause } = exit;
      if (status === undefined) return signalInWords(signal);
      const also = cause === "self" ? `; or it ended itself with code ${status}, which looks the same` : "";
      return `status ${status}: ${signalInWords(signal)}${also}`;
    }
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
  if (signal) return `what a shell says of a program that was ${signalInWords(signal)}`;
  return CODE_WORDS[code] ?? "a failure of the program's own kind";
}

function signalInWords(signal: string): string {
  return SIGNAL_WORDS[signal] ?? `ended by ${signal}`;
}

function signalOfNumber(number: number): string | undefined {
  return Object.entries(constants.signals).find(([, value]) => value === number)?.[0];
}

/** `the operator`, `agent boss`, `plugin policy-resources`, `the daemon`. */
export function actorInWords(actor: string): string {
  const [kind = "", name] = actor.split(/:(.*)/s);
  return name === undefined ? `the ${kind}` : `${kind} ${name}`;
}

/** Whose doing the end of a run was. */
export function enderInWords({ cause, actor }: Pick<Exit, "cause" | "actor">): string {
  const who = actorInWords(actor);
  switch (cause) {
    case "self":
      return "by itself";
    case "stop_request":
      return `${who} asked for it`;
    case "restart":
      return `${who} asked for a restart`;
    case "policy":
      return `${who} had it ended`;
    case "oom":
      return "the operating system killed it for its memory";
    case "start_timeout":
      return "it was not ready in time";
    case "unhealthy":
      return "it was found unhealthy";
    case "parent_exit":
      return "the agent that started it is over";
    case "daemon_stop":
      return "with the daemon";
    case "host_reboot":
      return "with the machine";
  }
}
