import { type ChildProcess, spawn } from "node:child_process";
import type { Socket } from "node:net";

/**
 * The process between the daemon and the agent: it outlives the daemon, and writes how the agent
 * ended. It is POSIX sh, so that it needs nothing installed and costs a tenth of a megabyte.
 *
 * Descriptors: 3 is the status file, 4 the gate. `$1` is the run's cgroup or empty, `$2` and `$3` the
 * files of its output, which only the inner shell opens. The inner shell becomes the agent: it joins
 * the cgroup, tells its pid, waits for "go", and executes the agent as the leader of a session of its
 * own. End of file at the gate means that the daemon died before it
 * had journaled the pid: then the agent never existed. The trap keeps the shim waiting through signals
 * without the agent inheriting that (an ignored signal would be inherited, a trapped one is not).
 */
const SCRIPT = `trap : TERM INT HUP QUIT
cg=$1 out=$2 err=$3; shift 3
(read -r p r </proc/self/stat
[ -n "$cg" ] && { echo 0 >"$cg/cgroup.procs"; } 2>/dev/null
echo "$p" >&4; read -r go <&4 || exit 125
exec setsid "$@" >>"$out" 2>>"$err" 3>&- 4>&-)
echo "exit $?" >&3`;

export interface ShimOptions {
  /** Absolute. */
  file: string;
  args: readonly string[];
  cwd: string;
  env: Record<string, string>;
  cgroup?: string;
  /** Files that exist, opened for append. */
  stdout: string;
  stderr: string;
  statusFd: number;
}

export interface Shim {
  readonly child: ChildProcess;
  /** The pid that will be the agent's, as soon as it waits at the gate. */
  readonly agentPid: Promise<number>;
  /** Lets it go on. */
  go(): void;
  /** Closes the gate: the agent never runs. */
  abort(): void;
}

/** Starts a shim. Throws, or rejects `agentPid`, when the process cannot be made. */
export function startShim(options: ShimOptions): Shim {
  const { stdout, stderr, statusFd } = options;
  const child = spawn(
    "/bin/sh",
    ["-c", SCRIPT, "openstarry-shim", options.cgroup ?? "", stdout, stderr, options.file, ...options.args],
    {
      cwd: options.cwd,
      env: options.env,
      // A session of its own: what ends the daemon's does not end this.
      detached: true,
      stdio: ["ignore", "ignore", "ignore", statusFd, "pipe"],
    },
  );
  const gate = child.stdio[4] as Socket | null | undefined;
  const agentPid = new Promise<number>((resolve, reject) => {
    let text = "";
    child.once("error", reject);
    gate?.on("data", (chunk) => {
      text += chunk.toString("latin1");
      if (text.endsWith("\n")) resolve(Number(text));
    });
    gate?.on("error", reject);
    gate?.on("close", () => reject(new Error("the process ended before it could be held")));
  });
  // Whoever waits gets the error; nobody else has to.
  agentPid.catch(() => {});
  child.unref();
  return {
    child,
    agentPid,
    go() {
      gate?.end("go\n");
      gate?.unref();
    },
    abort: () => gate?.destroy(),
  };
}
