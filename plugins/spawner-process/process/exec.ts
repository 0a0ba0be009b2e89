import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Clock, ExitStatus } from "../../../core/index.js";
import { cgroupPids, killCgroup, removeCgroup } from "../tree/cgroup.js";
import { isAlive } from "../tree/identity.js";
import { type Held, JOIN, joinArgs } from "./shim.js";
import type { ProcessTarget } from "./target.js";

const SCRIPT = `${JOIN}
exec "$@"`;

/** What was killed needs a moment to leave its cgroup. */
const REMOVE_AFTER_MS = 100;

let count = 0;

export interface ExecOptions {
  target: ProcessTarget;
  /** What holds the run, besides its own cgroup. */
  held: Held;
  /** What becomes the agent's user, then the command. */
  argv: readonly string[];
  clock: Clock;
  signal: AbortSignal;
}

/**
 * Runs a command beside a run: in its environment and folder as its shim was given them, in a cgroup below
 * the run's and under its limits. The shim's, not the agent's own: that one could have been changed by the agent, and decides here
 * what runs with the daemon's rights until they are dropped. Rejects when the run is over, or its shim is gone. Once `signal` aborts
 * the command is killed with its process group; with a cgroup nothing of it is left in any case, without one
 * what it left in other groups ends with the run.
 */
export async function execInRun({ target, held, argv, clock, signal }: ExecOptions): Promise<ExitStatus> {
  const { shim } = target;
  if (signal.aborted) return { kind: "lost" };
  // The shim is there a moment longer: it has to say how the run ended.
  if (!isAlive(target)) throw new Error("the run is over");
  if (!shim || !isAlive(shim)) throw new Error("the shim that knows the agent's environment is gone");
  const env = parseEnvironment(readFileSync(`/proc/${shim.pid}/environ`, "utf8"));
  const group = openGroup(target.cgroup);
  const stop = new AbortController();
  try {
    const own = group ?? target.cgroup;
    const cgroups = [...(own === undefined ? [] : [own]), ...held.cgroups];
    const args = joinArgs({ ...held, cgroups });
    const child = spawn("/bin/sh", ["-c", SCRIPT, "openstarry-exec", ...args, ...argv], {
      cwd: `/proc/${shim.pid}/cwd`,
      env,
      detached: true,
      stdio: "ignore",
    });
    const kill = () => {
      if (group !== undefined) killCgroup(group);
      // It may not have come so far as to join.
      killGroup(child);
    };
    signal.addEventListener("abort", kill, { once: true, signal: stop.signal });
    return await ended(child);
  } finally {
    stop.abort();
    if (group !== undefined) closeGroup(group, clock);
  }
}

function ended(child: ChildProcess): Promise<ExitStatus> {
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code, signal) =>
      resolve(signal === null ? { kind: "exited", code: code ?? 0 } : { kind: "signaled", signal }),
    );
  });
}

/** Only while the child is not collected: its number could be another's by then. */
function killGroup({ pid, exitCode, signalCode }: ChildProcess): void {
  if (pid === undefined || exitCode !== null || signalCode !== null) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It is gone.
  }
}

function openGroup(cgroup: string | undefined): string | undefined {
  if (cgroup === undefined) return undefined;
  count += 1;
  const group = join(cgroup, `exec-${count}`);
  try {
    mkdirSync(group);
    return group;
  } catch {
    // The run is over, or its group takes no others: the command is part of its tree all the same.
    return undefined;
  }
}

function closeGroup(group: string, clock: Clock): void {
  const left = cgroupPids(group).length > 0 && killCgroup(group);
  clock.after(left ? REMOVE_AFTER_MS : 0, () => removeCgroup(group));
}

function parseEnvironment(text: string): Record<string, string> {
  const entries = text.split("\0").filter((entry) => entry.indexOf("=") > 0);
  return Object.fromEntries(
    entries.map((entry) => [entry.slice(0, entry.indexOf("=")), entry.slice(entry.indexOf("=") + 1)]),
  );
}
