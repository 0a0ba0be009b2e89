import { constants } from "node:os";
import type { AgentState, Exit } from "../../../core/index.js";

const SIGNAL_WORDS: Readonly<Record<string, string>> = {
  SIGKILL: "killed by SIGKILL",
  SIGTERM: "terminated by SIGTERM",
  SIGINT: "interrupted by SIGINT, as by Ctrl-C",
  SIGHUP: "killed by SIGHUP, as when a terminal closes",
  SIGSEGV: "crashed: invalid memory access (SIGSEGV)",
  SIGBUS: "crashed: bus error (SIGBUS)",
  SIGABRT: "aborted itself, as after a failed assertion (SIGABRT)",
  SIGILL: "crashed: illegal instruction (SIGILL)",
  SIGFPE: "crashed: arithmetic error (SIGFPE)",
  SIGPIPE: "wrote to a closed pipe (SIGPIPE)",
  SIGXCPU: "exceeded its CPU time limit (SIGXCPU)",
  SIGXFSZ: "exceeded its file size limit (SIGXFSZ)",
};

/** The usual meanings of exit codes (POSIX, and BSD's sysexits.h). */
const CODE_WORDS: Readonly<Record<number, string>> = {
  1: "general error",
  2: "error, often wrong usage",
  64: "wrong usage",
  65: "invalid input data",
  66: "cannot open input",
  69: "a required service is unavailable",
  70: "internal error",
  73: "cannot create output",
  74: "input/output error",
  75: "temporary failure",
  77: "permission denied",
  78: "configuration error",
  126: "command not executable",
  127: "command not found",
};

/**
 * Says how a run ended and what the number or signal means: `status 143: terminated by SIGTERM`. What a shell reports
 * as 128 plus a signal's number may also be the program's own exit code: both are named unless the daemon sent the
 * signal.
 */
export function exitInWords(exit: Exit): string {
  switch (exit.kind) {
    case "exited":
      return `exit ${exit.code}: ${codeInWords(exit.code, exit.success)}`;
    case "signaled": {
      const { raw_status: status, signal, cause } = exit;
      if (status === undefined) return signalInWords(signal);
      const also = cause === "self" ? `, or it exited with code ${status} (indistinguishable)` : "";
      return `status ${status}: ${signalInWords(signal)}${also}`;
    }
    case "spawn_failed":
      return `could not be started: ${exit.error.detail} (${exit.error.code})`;
    case "lost":
      return "exited while unsupervised; exit status unknown";
  }
}

function codeInWords(code: number, success: boolean): string {
  if (code === 0) return success ? "success" : "no error, but not counted as success";
  if (success) return "counted as success";
  const signal = code > 128 ? signalOfNumber(code - 128) : undefined;
  // A shell that ran the program reports 128 plus the signal's number.
  if (signal) return `${signalInWords(signal)}, as reported by a shell`;
  return CODE_WORDS[code] ?? "program-specific error";
}

function signalInWords(signal: string): string {
  return SIGNAL_WORDS[signal] ?? `killed by ${signal}`;
}

function signalOfNumber(number: number): string | undefined {
  return Object.entries(constants.signals).find(([, value]) => value === number)?.[0];
}

/** Words an actor: `the operator`, `agent boss`, `plugin policy-resources`, `the daemon`. */
export function actorInWords(actor: string): string {
  const [kind = "", name] = actor.split(/:(.*)/s);
  return name === undefined ? `the ${kind}` : `${kind} ${name}`;
}

/** Says what or who ended a run. */
export function enderInWords({ cause, actor }: Pick<Exit, "cause" | "actor">): string {
  const who = actorInWords(actor);
  switch (cause) {
    case "self":
      return "by itself";
    case "stop_request":
    case "policy":
      return `stopped by ${who}`;
    case "restart":
      return `restarted by ${who}`;
    case "oom":
      return "killed by the operating system, out of memory";
    case "start_timeout":
      return "it was not ready in time";
    case "unhealthy":
      return "it was unhealthy";
    case "parent_exit":
      return "its parent has ended";
    case "daemon_stop":
      return "stopped with the daemon";
    case "host_reboot":
      return "ended with the machine";
  }
}

/** Words a state as a predicate: `is running`, `has failed`, `is backing off`. */
export function stateInWords(state: AgentState): string {
  if (state === "exited" || state === "failed") return `has ${state}`;
  return state === "backoff" ? "is backing off" : `is ${state}`;
}
