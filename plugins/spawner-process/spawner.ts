import { closeSync } from "node:fs";
import {
  type AdoptSpec,
  type Clock,
  isOpenStarryError,
  type Logger,
  OpenStarryError,
  type RunIdentity,
  type Spawner,
  type SpawnSpec,
} from "../../core/index.js";
import type { PosixSpawn } from "../_shared/posix-spawn.js";
import { type Cgroups, isInCgroup, removeCgroup } from "./cgroup.js";
import { resolveCommand, resolveCwd } from "./command.js";
import { endLeftovers } from "./end-tree.js";
import { buildEnvironment } from "./environment.js";
import { openNew, type RunFolders } from "./folders.js";
import { bootId, identify } from "./identity.js";
import { readLogs } from "./logs.js";
import { logFile } from "./output.js";
import { checkEnvironment, createToolFinder, dropTo } from "./privileges.js";
import { createRunHandle, type OwnedRun, type ProcessTarget, parseTarget } from "./run-handle.js";
import { type Shim, type ShimOptions, startShim } from "./shim.js";
import { sweepLeftovers } from "./sweep.js";
import { createTreeWatch } from "./tree-watch.js";
import { findUser, type User } from "./users.js";

export interface ProcessSpawnerDeps {
  clock: Clock;
  log: Logger;
  home: string;
  folders: RunFolders;
  /** Absent where cgroup v2 cannot be used. */
  cgroups: Cgroups | undefined;
  /** Absent: processes are made by fork. */
  native: PosixSpawn | undefined;
  /** The daemon's own environment, for `pass_env`. */
  env: Readonly<Record<string, string | undefined>>;
}

/** Runs agents as operating system processes behind a gated shim. */
export interface ProcessSpawner extends Spawner {
  /** Lets go of every process; they live on. */
  release(): void;
}

export function createProcessSpawner(deps: ProcessSpawnerDeps): ProcessSpawner {
  const { clock, folders, cgroups } = deps;
  const owned = new Map<string, OwnedRun>();
  const trees = createTreeWatch(clock);
  const tool = createToolFinder(deps.env["PATH"]);

  /** Everything that can be known before there is a process. */
  function resolve(spec: SpawnSpec) {
    const user = spec.user === undefined ? undefined : findUser(spec.user);
    const env = buildEnvironment(spec, user, deps.env);
    checkEnvironment(env, user);
    const file = resolveCommand(spec, env["PATH"] ?? "");
    const cwd = resolveCwd(spec, folders.runFolder(spec.agentId, spec.runId, user));
    return { user, env, cwd, file, setsid: tool("setsid"), drop: dropTo(user, tool) };
  }

  async function spawn(spec: SpawnSpec, commit: (run: RunIdentity) => Promise<void>) {
    const { user, env, cwd, file, setsid, drop } = resolve(spec);
    const { agentId, runId } = spec;
    let shim: Shim | undefined;
    const cgroup = cgroups?.create(runId);
    try {
      const paths = folders.make(spec, user);
      shim = openFilesAndStart(spec, user, {
        argv: [...drop, file, ...spec.args],
        setsid,
        env: { ...env, ...paths, PWD: cwd },
        cwd,
        ...(cgroup === undefined ? {} : { cgroup }),
      });
      // While the shim comes up.
      folders.fill(spec, user);
      const folder = folders.runFolder(agentId, runId, user);
      const target = identifyRun(await shim.agentPid, shim, cgroup, folder);
      const containment = target.cgroup === undefined ? "best_effort" : "full";
      await commit({ target, pid: target.pid, containment });
      const run = own(spec, target, shim.ended);
      shim.go();
      void folders
        .prune(agentId, runId, spec.logs.keep)
        .catch((error) =>
          deps.log.warn({ agent_id: agentId, err: error }, "older runs could not be cleared away"),
        );
      return run.handle;
    } catch (cause) {
      shim?.abort();
      if (cgroup !== undefined) void (shim?.ended ?? Promise.resolve()).then(() => removeCgroup(cgroup));
      if (isOpenStarryError(cause) || typeof cause === "symbol") throw cause;
      throw spawnFailed(spec, cause);
    }
  }

  function openFilesAndStart(
    spec: SpawnSpec,
    user: User | undefined,
    start: Omit<ShimOptions, "stdout" | "stderr" | "statusFd">,
  ): Shim {
    const { agentId, runId, logs } = spec;
    const folder = folders.logFolder(agentId);
    const stdout = logFile(folder, runId, "stdout");
    const stderr = logs.merge ? stdout : logFile(folder, runId, "stderr");
    for (const file of new Set([stdout, stderr])) closeSync(openNew(file, user));
    const statusFd = openNew(folders.statusFile(agentId, runId));
    try {
      // The shim stays with the daemon's user, so that the agent cannot touch it.
      return startShim({ ...start, stdout, stderr, statusFd }, deps.native);
    } finally {
      closeSync(statusFd);
    }
  }

  function identifyRun(pid: number, shim: Shim, cgroup: string | undefined, folder: string): ProcessTarget {
    const identity = identify(pid);
    const shimIdentity = identify(shim.pid);
    if (!identity || !shimIdentity) throw new Error("the process ended before it could be identified");
    const joined = cgroup !== undefined && isInCgroup(pid, cgroup);
    if (cgroup !== undefined && !joined) removeCgroup(cgroup);
    return {
      ...identity,
      shim: shimIdentity,
      ...(joined ? { cgroup } : {}),
      folder,
    };
  }

  function own(spec: SpawnSpec | AdoptSpec, target: ProcessTarget, shimExit?: Promise<void>): OwnedRun {
    const { agentId, runId, stop } = spec;
    const logs = folders.logFolder(agentId);
    const run = createRunHandle({
      runId,
      target,
      clock,
      log: deps.log,
      statusFile: folders.statusFile(agentId, runId),
      logFiles: [logFile(logs, runId, "stdout"), logFile(logs, runId, "stderr")],
      stop,
      beforeEnd: trees.lookNow,
      ...(shimExit === undefined ? {} : { shimExit }),
    });
    owned.set(runId, run);
    trees.watch(run.tree);
    void run.handle.exit.then(() => {
      owned.delete(runId);
      trees.drop(run.tree);
    });
    return run;
  }

  /** A damaged record must not lead to another run's group. */
  function ownCgroupOnly(runId: string, recorded: string | undefined): string | undefined {
    return recorded !== undefined && recorded === cgroups?.pathOf(runId) ? recorded : undefined;
  }

  return {
    name: "process",
    capabilities: { adopt: true },
    check: async (spec) => void resolve(spec),
    spawn,
    async adopt(spec) {
      const recorded = parseTarget(spec.target);
      const target = recorded && { ...recorded, cgroup: ownCgroupOnly(spec.runId, recorded.cgroup) };
      if (!target) return { outcome: { status: { kind: "lost" }, note: "its record names no process" } };
      if (target.boot_id !== bootId()) return { outcome: { status: { kind: "lost" }, cause: "host_reboot" } };
      const { handle, isOver } = own(spec, target);
      if (!isOver()) return { handle };
      // What it left may hang in the kernel; the others have to be taken over all the same.
      const outcome = await within(handle.exit, ADOPT_PATIENCE_MS, clock);
      return outcome ? { outcome } : { handle };
    },
    async sweep(live, unknown) {
      const spared = new Set([...live, ...[...unknown].flatMap(folders.runs)]);
      await sweepLeftovers({
        live: spared,
        unknown,
        home: deps.home,
        cgroups,
        end: (tree) => endLeftovers(tree, clock, { signal: "SIGTERM", graceMs: 1_000 }),
        log: deps.log,
      });
      await folders.sweepShared(spared);
    },
    processes: trees.processes,
    forget: (agentId) => folders.forget(agentId),
    logs: (agentId, query) => readLogs(folders.logFolder(agentId), query),
    release() {
      for (const run of owned.values()) run.release();
      owned.clear();
      trees.release();
      cgroups?.release();
    },
  };
}

/** How long a boot waits for what a run that is over has left behind. */
const ADOPT_PATIENCE_MS = 5_000;

/** What the promise resolves with; `undefined` when that takes longer. */
async function within<T>(promise: Promise<T>, limitMs: number, clock: Clock): Promise<T | undefined> {
  let cancel = () => {};
  const late = new Promise<undefined>((resolve) => {
    cancel = clock.after(limitMs, () => resolve(undefined));
  });
  return Promise.race([promise, late]).finally(() => cancel());
}

function spawnFailed(spec: SpawnSpec, cause: unknown): OpenStarryError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const why =
    code === "E2BIG"
      ? "its arguments and environment are too long for one process"
      : code === "ENOSPC"
        ? "the disk is full"
        : code === "EMFILE" || code === "ENFILE"
          ? "there are no file descriptors left"
          : code === "EAGAIN"
            ? "the system allows no more processes"
            : (code ?? message);
  return new OpenStarryError("spawn_failed", {
    detail: `agent ${spec.agentId} could not be started: ${why}`,
    hint: "look into the daemon's log; what is lacking may have to be freed first",
    cause,
  });
}
