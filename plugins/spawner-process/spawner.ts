import { closeSync } from "node:fs";
import { join } from "node:path";
import {
  type AdoptSpec,
  type Clock,
  isOpenStarryError,
  type Logger,
  OpenStarryError,
  type RunIdentity,
  SpawnDeferred,
  type Spawner,
  type SpawnSpec,
} from "../../core/index.js";
import { findUser, type User } from "../kit/users.js";
import type { LimitGroups } from "./limits/limits.js";
import { oomScoreOfAgents } from "./limits/oom-score.js";
import { limitProcesses, openFilesHeld } from "./limits/rlimits.js";
import { createRotationScheduler } from "./logs/rotation-scheduler.js";
import { readTail } from "./logs/output-tail.js";
import { liveName, STREAMS } from "./logs/segments.js";
import { type PunchHole, punchByTool } from "./logs/punch-hole.js";
import { readLogs } from "./logs/read.js";
import { resolveCommand, resolveCwd } from "./process/command.js";
import { buildEnvironment } from "./process/environment.js";
import { execInRun } from "./process/exec.js";
import { openNew, type RunFolders } from "./process/folders.js";
import type { PosixSpawn } from "./process/posix-spawn.js";
import { checkEnvironment, createToolFinder, dropTo } from "./process/privileges.js";
import { createRunHandle, type OwnedRun, type ProcessTarget, parseTarget } from "./process/run-handle.js";
import { ENDED_EARLY, type Shim, type ShimOptions, startShim } from "./process/shim.js";
import { type Cgroups, isInCgroup, removeCgroup } from "./tree/cgroup.js";
import { endLeftovers } from "./tree/end-tree.js";
import { bootId, identify, isAlive } from "./tree/identity.js";
import { reapOrphans, treesOf } from "./tree/orphans.js";
import { createTreeWatch } from "./tree/tree-watch.js";

export interface ProcessSpawnerDeps {
  clock: Clock;
  log: Logger;
  home: string;
  folders: RunFolders;
  /** Absent where cgroup v2 cannot be used. */
  cgroups: Cgroups | undefined;
  /** Absent where no cgroup can limit anything. */
  limits?: LimitGroups | undefined;
  /** Absent: processes are made by fork. */
  native: PosixSpawn | undefined;
  /** Absent: holes in output files are made by fallocate(1). */
  punch: PunchHole | undefined;
  /** The daemon's own environment, for `pass_env`. */
  env: Readonly<Record<string, string | undefined>>;
  /** Told, in words, of a fault that belongs to no agent. */
  onProblem(problem: string): void;
}

/** Runs agents as operating system processes behind a gated shim. */
export interface ProcessSpawner extends Spawner {
  /** Lets go of every process; they live on. Resolves when nothing is written to their output any more. */
  release(): Promise<void>;
}

export function createProcessSpawner(deps: ProcessSpawnerDeps): ProcessSpawner {
  const { clock, folders, cgroups, limits } = deps;
  const oomScore = oomScoreOfAgents();
  const owned = new Map<string, OwnedRun>();
  const trees = createTreeWatch(clock, deps.log, join(deps.home, "remembered.json"));
  const tool = createToolFinder(deps.env["PATH"]);
  const rotation = createRotationScheduler({
    clock,
    log: deps.log,
    punches: [...(deps.punch ? [deps.punch] : []), punchByTool(() => tool("fallocate"))],
    onProblem: deps.onProblem,
  });

  /** Everything that can be known before there is a process. */
  function resolve(spec: SpawnSpec) {
    const user = spec.user === undefined ? undefined : findUser(spec.user);
    const env = buildEnvironment(spec, user, deps.env);
    checkEnvironment(env, user);
    const file = resolveCommand(spec, env["PATH"] ?? "");
    const cwd = resolveCwd(spec, folders.runFolder(spec.agentId, spec.runId, user));
    const nproc = limits?.can("pids") ? [] : limitProcesses(spec.limits?.pids, user, tool);
    return { user, env, cwd, file, setsid: tool("setsid"), drop: dropTo(user, tool), nproc };
  }

  async function spawn(spec: SpawnSpec, commit: (run: RunIdentity) => Promise<void>) {
    const { user, env, cwd, file, setsid, drop, nproc } = resolve(spec);
    const { agentId, runId, limits: wanted = {} } = spec;
    let shim: Shim | undefined;
    const cgroup = cgroups?.create(runId);
    const groups = new Set([
      ...(cgroup === undefined ? [] : [cgroup]),
      ...(limits?.create(runId, wanted) ?? []),
    ]);
    try {
      const paths = folders.make(spec, user);
      shim = openFilesAndStart(spec, user, {
        argv: [...drop, ...nproc, file, ...spec.args],
        setsid,
        env: { ...env, ...paths, PWD: cwd },
        cwd,
        cgroups: [...groups],
        ...(wanted.openFiles === undefined ? {} : { openFiles: wanted.openFiles }),
        ...(oomScore === undefined ? {} : { oomScore }),
      });
      // While the shim comes up.
      folders.fill(spec, user);
      const folder = folders.runFolder(agentId, runId, user);
      const identified = identifyRun(await shim.agentPid, shim, cgroup, folder);
      const rlimits = {
        ...openFilesHeld(identified.pid, wanted.openFiles),
        ...(wanted.pids !== undefined && nproc.length > 0 ? { pids: wanted.pids } : {}),
      };
      const target = {
        ...identified,
        ...(spec.user === undefined ? {} : { user: spec.user }),
        limits: wanted,
        rlimits,
      };
      const containment = target.cgroup === undefined ? "best_effort" : "full";
      const held = { ...limits?.holding(runId, wanted, target.pid), ...rlimits };
      await commit({ target, pid: target.pid, containment, held });
      const run = own(spec, target, shim.ended);
      shim.go();
      void folders
        .prune(agentId, runId)
        .catch((error) =>
          deps.log.warn({ agent_id: agentId, err: error }, "older runs could not be cleared away"),
        );
      return run.handle;
    } catch (cause) {
      shim?.abort();
      void (shim?.ended ?? Promise.resolve()).then(() => {
        if (cgroup !== undefined) removeCgroup(cgroup);
        limits?.remove(runId);
      });
      await folders
        .undo(agentId, runId)
        .catch((error) =>
          deps.log.warn({ agent_id: agentId, err: error }, "a run that was not could not be cleared away"),
        );
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
    const stdout = join(folder, liveName(runId, "stdout"));
    const stderr = logs.merge ? stdout : join(folder, liveName(runId, "stderr"));
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
    const streams = spec.logs.merge ? (["stdout"] as const) : STREAMS;
    const over = rotation.keep({ agentId, runId, folder: logs, streams, rules: spec.logs });
    const run = createRunHandle({
      runId,
      target,
      clock,
      log: deps.log,
      statusFile: folders.statusFile(agentId, runId),
      outputTail: () => readTail(logs, runId),
      stop,
      groups: limits,
      watch: trees,
      ...(shimExit === undefined ? {} : { shimExit }),
    });
    owned.set(runId, run);
    trees.watch(run.tree);
    void run.handle.exit.then(() => {
      owned.delete(runId);
      trees.drop(run.tree);
      void over();
    });
    return run;
  }

  /** Whose a run is, by the files that it has now. */
  function ownersOnDisk(): (runId: string) => string | undefined {
    const owners = new Map(
      folders.agents().flatMap((agentId) => folders.runs(agentId).map((runId) => [runId, agentId] as const)),
    );
    return (runId) => owners.get(runId);
  }

  /** A damaged record must not lead to another run's group. */
  function ownCgroupOnly(runId: string, { cgroup, ...identity }: ProcessTarget): string | undefined {
    if (cgroup === undefined || cgroup === cgroups?.pathOf(runId)) return cgroups && cgroup;
    const isIts = isAlive(identity) && cgroups?.isGroupOf(cgroup, runId, identity.pid);
    return isIts ? cgroup : undefined;
  }

  return {
    name: "process",
    capabilities: { adopt: true },
    check: async (spec) => void resolve(spec),
    spawn,
    async adopt(spec) {
      const recorded = parseTarget(spec.target);
      const target = recorded && { ...recorded, cgroup: ownCgroupOnly(spec.runId, recorded) };
      if (!target) return { outcome: { status: { kind: "lost" }, note: "its record names no process" } };
      if (target.boot_id !== bootId()) return { outcome: { status: { kind: "lost" }, cause: "host_reboot" } };
      if (target.pid === process.pid) return { outcome: { status: { kind: "lost" }, note: NAMES_DAEMON } };
      const { handle, isOver } = own(spec, target);
      if (!isOver()) return { handle };
      // What it left may hang in the kernel; the others have to be taken over all the same.
      const outcome = await within(handle.exit, ADOPT_PATIENCE_MS, clock);
      return outcome ? { outcome } : { handle };
    },
    async reapOrphans(live, known) {
      const orphaned = await reapOrphans({
        live,
        known,
        ownerOf: ownersOnDisk(),
        home: deps.home,
        cgroups,
        remembered: trees.orphans(),
        end: (tree) => endLeftovers(tree, clock, { signal: "SIGTERM", graceMs: 1_000 }),
        log: deps.log,
      });
      const unknown = folders.agents().filter((agentId) => !known.has(agentId));
      const spared = new Set([...live, ...unknown.flatMap(folders.runs)]);
      trees.forgetOrphans(spared);
      for (const runId of limits?.runs() ?? []) if (!spared.has(runId)) limits?.remove(runId);
      await folders.sweepShared(spared);
      return orphaned;
    },
    async discard(agentId) {
      const scene = { home: deps.home, cgroups, remembered: trees.orphans(), ownerOf: ownersOnDisk() };
      const left = treesOf(scene, (run) => run.agentId === agentId && !owned.has(run.runId));
      const how = { signal: "SIGTERM", graceMs: DISCARD_GRACE_MS };
      const survivors = await Promise.all(left.map((tree) => endLeftovers(tree, clock, how)));
      return { survivors: survivors.flat() };
    },
    processes: trees.processes,
    async forget(agentId) {
      await rotation.forget(folders.logFolder(agentId));
      await folders.forget(agentId);
    },
    logs: (agentId, query) => readLogs(folders.logFolder(agentId), query, rotation.seen),
    async exec({ runId }, argv, signal) {
      const target = parseTarget(owned.get(runId)?.handle.target);
      if (!target) throw new Error("the run is over");
      const user = target.user === undefined ? undefined : findUser(target.user);
      const { openFiles, pids } = target.rlimits ?? {};
      const held = {
        cgroups: limits?.groupsOf(runId) ?? [],
        ...(openFiles === undefined ? {} : { openFiles }),
        ...(oomScore === undefined ? {} : { oomScore }),
      };
      const drop = [...dropTo(user, tool), ...limitProcesses(pids, user, tool)];
      return execInRun({ target, held, argv: [...drop, ...argv], clock, signal });
    },
    release() {
      for (const run of owned.values()) run.release();
      owned.clear();
      limits?.release();
      trees.release();
      cgroups?.release();
      return rotation.release();
    },
  };
}

const NAMES_DAEMON = "its record names the daemon itself";
/** What the template would have said is not known. */
const DISCARD_GRACE_MS = 10_000;

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

/** What passes, and is no fault of the agent's: by error code. */
const LACKING: Readonly<Record<string, string>> = {
  ENOSPC: "the disk is full",
  EDQUOT: "the disk quota is used up",
  EMFILE: "there are no file descriptors left",
  ENFILE: "there are no file descriptors left",
  EAGAIN: "the system allows no more processes",
  ENOMEM: "there is no memory left",
  [ENDED_EARLY]: "its process ended before it could be held, as it does where no more processes are allowed",
};
/** How long a start waits for what is lacking. */
const LACKING_RETRY_MS = 2_000;

function spawnFailed(spec: SpawnSpec, cause: unknown): OpenStarryError {
  const { code = "", message } = cause as NodeJS.ErrnoException;
  const lacking = LACKING[code];
  if (lacking !== undefined) return new SpawnDeferred(lacking, { retryAfterMs: LACKING_RETRY_MS });
  const why =
    code === "E2BIG" ? "its arguments and environment are too long for one process" : code || message;
  return new OpenStarryError("spawn_failed", {
    detail: `agent ${spec.agentId} could not be started: ${why}`,
    hint: "look into the daemon's log; what is lacking may have to be freed first",
    cause,
  });
}
