import { spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { cgroupPids, killCgroup, removeCgroup } from "../../plugins/spawner-process/tree/cgroup.js";
import type { CliResult } from "./daemon.js";
import { runProgram } from "./package.js";
import { waitFor } from "./wait-for.js";

const SYSTEMD = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"].find(existsSync);

/** A `systemd --user` of the test's own, with a folder and a cgroup of its own. */
export interface UserManager {
  /** `systemctl --user ARGS`. */
  systemctl(...args: string[]): Promise<CliResult>;
  /** One property of a unit, such as `MainPID`. */
  show(unit: string, property: string): Promise<string>;
  /** What is in the cgroup of a unit, agents and their shims included. */
  pidsOf(unit: string): number[];
  /** What the manager itself had to say. */
  log(): string;
  /** Ends it and everything that it, or what it started, has left. */
  end(): Promise<void>;
}

/**
 * Says why no `systemd --user` can be run here. With `CI_REQUIRE_SERVICES=1` that is an error instead: there
 * the test must not be left out.
 */
export function noUserManager(): string | undefined {
  const missing = obstacle();
  if (missing !== undefined && process.env["CI_REQUIRE_SERVICES"] === "1") throw new Error(missing);
  return missing;
}

function obstacle(): string | undefined {
  if (SYSTEMD === undefined) return "systemd is not installed";
  if (process.getuid?.() !== 0) return "a cgroup file system of its own needs root";
  const mount = cgroupMount();
  if (mount === undefined) return "there is no cgroup file system of version 2";
  try {
    accessSync(mount, constants.W_OK);
    return undefined;
  } catch {
    return "the cgroup file system of version 2 cannot be written";
  }
}

function cgroupMount(): string | undefined {
  const mounts = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  return mounts.find((line) => line.includes(" - cgroup2 "))?.split(" ")[4];
}

/**
 * Version 2 alone, where systemd looks for it, in a mount namespace of its own; and the mark by which it
 * takes the machine for one that systemd has booted. The shell becomes the manager.
 */
const SCRIPT = `set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
umount -l /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 none /sys/fs/cgroup
echo $$ >"/sys/fs/cgroup$1/cgroup.procs"
exec "$2" --user --unit=basic.target --log-target=console --log-level=info`;

/** Starts one whose units, beside the ones that are installed, are those of `folder`/config/systemd/user. */
export async function startUserManager(folder: string): Promise<UserManager> {
  const runtime = join(folder, "runtime");
  mkdirSync(runtime, { mode: 0o700 });
  const own = /^0::(.*)$/m.exec(readFileSync("/proc/self/cgroup", "utf8"))?.[1] ?? "/";
  const name = join(own, `openstarry-systemd-${process.pid}`);
  const cgroup = join(cgroupMount() ?? "/sys/fs/cgroup", name);
  mkdirSync(cgroup);
  const logFile = join(folder, "manager.log");
  const log = openSync(logFile, "a");
  const env = {
    PATH: process.env["PATH"] ?? "",
    HOME: folder,
    XDG_RUNTIME_DIR: runtime,
    XDG_CONFIG_HOME: join(folder, "config"),
    XDG_DATA_HOME: join(folder, "data"),
  };
  const args = ["-m", "--propagation", "private", "sh", "-c", SCRIPT, "sh", name, SYSTEMD ?? ""];
  const child = spawn("unshare", args, { env, stdio: ["ignore", log, log] });
  const ended = once(child, "exit");
  const manager: UserManager = {
    systemctl: (...words) =>
      runProgram("systemctl", ["--user", "--no-pager", "--full", ...words], {
        env: { XDG_RUNTIME_DIR: runtime },
      }),
    async show(unit, property) {
      const { stdout } = await manager.systemctl("show", unit, "--property", property, "--value");
      return stdout.trim();
    },
    pidsOf: (unit) => cgroupPids(join(cgroup, "app.slice", unit)),
    log: () => readFileSync(logFile, "utf8"),
    async end() {
      // Nothing but what this helper started is in there; without cgroup.kill it is ended one by one.
      if (!killCgroup(cgroup)) for (const pid of cgroupPids(cgroup)) process.kill(pid, "SIGKILL");
      await ended;
      const removed = () => {
        removeCgroup(cgroup);
        return !existsSync(cgroup);
      };
      await waitFor(removed, { what: "the end of all that was left", timeoutMs: 20_000 });
    },
  };
  try {
    await waitFor(async () => (await manager.systemctl("is-active", "basic.target")).code === 0, {
      what: "systemd --user",
      timeoutMs: 30_000,
      diagnose: manager.log,
    });
  } catch (error) {
    await manager.end();
    throw error;
  }
  return manager;
}

/** Puts a file below `folder`/config/systemd/user. */
export function writeUnit(folder: string, name: string, content: string): void {
  const path = join(folder, "config/systemd/user", name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}
