import { spawn } from "node:child_process";
import { closeSync } from "node:fs";
import { Socket } from "node:net";
import { NOT_TO_BE_SEEN, readIfThere } from "../tree/identity.js";
import type { PosixSpawn } from "./posix-spawn.js";

/**
 * Joins the cgroups up to `--`, then takes how many files may be open and how soon it is killed when memory
 * runs out (a daemon that is spared does not have its agents spared), either or both empty.
 */
export const JOIN = `while [ "$1" != -- ]; do { echo 0 >"$1/cgroup.procs"; } 2>/dev/null; shift; done; shift
[ -n "$1" ] && ulimit -n "$1" 2>/dev/null
[ -n "$2" ] && { echo "$2" >/proc/self/oom_score_adj; } 2>/dev/null
shift 2`;

/**
 * The process between the daemon and the agent: it outlives the daemon, and writes how the agent
 * ended. It is POSIX sh, so that it needs nothing installed and costs a tenth of a megabyte.
 *
 * Descriptors: 3 is the status file, 4 the gate. The arguments begin with those of `JOIN`; then come the two
 * files of its output, which only the inner shell opens, and setsid(1): all else is built into the shell, so
 * that the agent's `PATH` decides nothing here. The inner shell becomes the agent: it joins the cgroups, takes
 * the limits, tells its pid, waits for "go", and executes the agent as the leader of a session of its own. End
 * of file at the gate means that the daemon died before it let the agent go, whether or not it had journaled the
 * pid: then the agent never ran, and the status file says so. The trap keeps the shim waiting through signals
 * without the agent inheriting that (an ignored signal would be inherited, a trapped one is not).
 *
 * Values are in arguments only: a variable that the agent has, too, would stay exported and reach it with ours.
 * What `read` needs a name for has one that is the daemon's.
 */
const SCRIPT = `trap : TERM INT HUP QUIT
(read -r OPENSTARRY_HELD_PID OPENSTARRY_HELD_REST </proc/self/stat
${JOIN}
echo "$OPENSTARRY_HELD_PID" >&4; read -r OPENSTARRY_HELD_REST <&4 || { echo never >&3; exit 125; }
unset OPENSTARRY_HELD_PID OPENSTARRY_HELD_REST
exec >>"$1" 2>>"$2"; shift 2
exec "$@" 3>&- 4>&-)
echo "exit $?" >&3`;

/** The code of the error when there is no process to hold. */
export const ENDED_EARLY = "ended_early";

const SHIM_NAME = "openstarry-shim";

/** Whether a process is a shim, or one that is held at its gate: it runs no agent. */
export function isShim(pid: number): boolean {
  const words = readIfThere(`/proc/${pid}/cmdline`, NOT_TO_BE_SEEN)?.split("\0") ?? [];
  return words[1] === "-c" && words[3] === SHIM_NAME;
}

/** What a process of a run is held by. */
export interface Held {
  /** Those that it is put into. */
  cgroups: readonly string[];
  /** Of each process, soft and hard; a lower hard limit of the daemon stays. */
  openFiles?: number | undefined;
  oomScore?: number | undefined;
}

/** The arguments that `JOIN` takes. */
export function joinArgs({ cgroups, openFiles, oomScore }: Held): string[] {
  return [...cgroups, "--", String(openFiles ?? ""), String(oomScore ?? "")];
}

export interface ShimOptions extends Held {
  /** The program setsid(1). Absolute. */
  setsid: string;
  /** What the agent is executed by, an absolute path first. */
  argv: readonly string[];
  cwd: string;
  env: Record<string, string>;
  /** Files that exist, opened for append. */
  stdout: string;
  stderr: string;
  statusFd: number;
}

export interface Shim {
  readonly pid: number;
  /** The pid that will be the agent's, as soon as it waits at the gate. */
  readonly agentPid: Promise<number>;
  /** Resolves when the shim is gone. */
  readonly ended: Promise<void>;
  /** Lets the agent go on. */
  go(): void;
  /** Closes the gate: the agent never runs. */
  abort(): void;
}

/** Between two looks whether a shim that let go of its gate has ended. */
const LONGEST_PAUSE_MS = 100;

/** Starts a shim; by fork where there is no `native`. Throws an errno error when it cannot be made. */
export function startShim(options: ShimOptions, native: PosixSpawn | undefined): Shim {
  const { stdout, stderr, setsid } = options;
  const argv = ["-c", SCRIPT, SHIM_NAME, ...joinArgs(options), stdout, stderr, setsid, ...options.argv];
  return native ? spawnShim(options, argv, native) : forkShim(options, argv);
}

function spawnShim({ env, cwd, statusFd }: ShimOptions, argv: string[], native: PosixSpawn): Shim {
  const [ours, theirs] = native.socketPair();
  let pid: number;
  try {
    pid = native.spawn({ file: "/bin/sh", argv: ["sh", ...argv], env, cwd, fds: [statusFd, theirs] });
  } catch (error) {
    closeSync(ours);
    throw error;
  } finally {
    closeSync(theirs);
  }
  const gate = new Socket({ fd: ours, readable: true, writable: true });
  // The shim holds its end to its own end; the agent does not have it.
  const ended = new Promise<void>((resolve) => {
    const collect = (pauseMs: number) => {
      if (native.reap(pid)) resolve();
      else setTimeout(collect, pauseMs, Math.min(pauseMs * 2, LONGEST_PAUSE_MS)).unref();
    };
    gate.once("close", () => collect(1));
  });
  return { pid, ended, ...gateOf(gate) };
}

function forkShim({ env, cwd, statusFd }: ShimOptions, argv: string[]): Shim {
  const child = spawn("/bin/sh", argv, {
    cwd,
    env,
    // A session of its own: what ends the daemon's does not end this.
    detached: true,
    stdio: ["ignore", "ignore", "ignore", statusFd, "pipe"],
  });
  const failed = new Promise<never>((_, reject) => void child.once("error", reject));
  const ended = new Promise<void>((resolve) => void child.once("exit", () => resolve()));
  const gate = child.stdio[4] as Socket | undefined;
  child.unref();
  if (child.pid === undefined || !gate) {
    // Why, comes with the event.
    return { pid: 0, agentPid: failed, ended: Promise.resolve(), go() {}, abort() {} };
  }
  failed.catch(() => {});
  return { pid: child.pid, ended, ...gateOf(gate) };
}

function gateOf(gate: Socket): Pick<Shim, "agentPid" | "go" | "abort"> {
  const agentPid = new Promise<number>((resolve, reject) => {
    let text = "";
    gate.on("data", (chunk) => {
      text += chunk.toString("latin1");
      if (text.endsWith("\n")) resolve(Number(text));
    });
    gate.on("error", reject);
    gate.on("close", () => {
      reject(Object.assign(new Error("the process ended before it could be held"), { code: ENDED_EARLY }));
    });
  });
  // Whoever waits gets the error; nobody else has to.
  agentPid.catch(() => {});
  return {
    agentPid,
    go() {
      gate.write("go\n");
      gate.unref();
    },
    abort: () => void gate.destroy(),
  };
}
