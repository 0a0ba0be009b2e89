import { closeSync } from "node:fs";
import { join } from "node:path";
import { isOpenStarryError, type RunIdentity, type SpawnSpec } from "../../../core/index.js";
import { findUser, type User } from "../../kit/users.js";
import { limitProcesses, openFilesHeld } from "../limits/rlimits.js";
import { liveName } from "../logs/segments.js";
import type { ProcessSpawnerDeps } from "../spawner-deps.js";
import { isInCgroup, removeCgroup } from "../tree/cgroup.js";
import { identify } from "../tree/identity.js";
import { resolveCommand, resolveCwd } from "./command.js";
import { buildEnvironment } from "./environment.js";
import { openNew } from "./folders.js";
import { checkEnvironment, dropTo } from "./privileges.js";
import { type Shim, type ShimOptions, startShim } from "./shim.js";
import { spawnFailed } from "./spawn-failed.js";
import type { ProcessTarget } from "./target.js";

export interface RunStarterOptions {
  deps: ProcessSpawnerDeps;
  /** Finds a program that starts agents, such as setsid(1). */
  tool: (name: string) => string;
  oomScore: number | undefined;
}

/** Creates what starts runs: it prepares files and groups, starts the shim and holds the agent at the gate. */
export function createRunStarter({ deps, tool, oomScore }: RunStarterOptions) {
  const { folders, cgroups, limits, log } = deps;

  /** Resolves what can be known before there is a process. Throws as `check` rejects. */
  function resolve(spec: SpawnSpec) {
    const user = spec.user === undefined ? undefined : findUser(spec.user);
    const env = buildEnvironment(spec, user, deps.env);
    checkEnvironment(env, user);
    const file = resolveCommand(spec, env["PATH"] ?? "");
    const cwd = resolveCwd(spec, folders.runFolder(spec.agentId, spec.runId, user));
    const nproc = limits?.can("pids") ? [] : limitProcesses(spec.limits?.pids, user, tool);
    return { user, env, cwd, file, setsid: tool("setsid"), drop: dropTo(user, tool), nproc };
  }

  /** Starts a run. `commit` makes it durable; then `own` takes it over, and the agent is released from the gate. */
  async function start<T>(
    spec: SpawnSpec,
    commit: (run: RunIdentity) => Promise<void>,
    own: (target: ProcessTarget, shimExit: Promise<void>) => T,
  ): Promise<T> {
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
        openFiles: wanted.openFiles,
        oomScore,
      });
      // The shim starts meanwhile.
      folders.fill(spec, user);
      const folder = folders.runFolder(agentId, runId, user);
      const identified = identifyRun(await shim.agentPid, shim, cgroup, folder);
      const rlimits = {
        ...openFilesHeld(identified.pid, wanted.openFiles),
        ...(wanted.pids !== undefined && nproc.length > 0 ? { pids: wanted.pids } : {}),
      };
      const target: ProcessTarget = {
        ...identified,
        // The target is JSON, which has no undefined.
        ...(spec.user === undefined ? {} : { user: spec.user }),
        limits: wanted,
        rlimits,
      };
      const containment = target.cgroup === undefined ? "best_effort" : "full";
      const held = { ...limits?.holding(runId, wanted, target.pid), ...rlimits };
      await commit({ target, pid: target.pid, containment, held });
      const run = own(target, shim.ended);
      shim.go();
      void folders
        .prune(agentId, runId)
        .catch((error) =>
          log.warn({ agent_id: agentId, err: error }, "could not remove the files of older runs"),
        );
      return run;
    } catch (cause) {
      shim?.abort();
      void (shim?.ended ?? Promise.resolve()).then(() => {
        if (cgroup !== undefined) removeCgroup(cgroup);
        limits?.remove(runId);
      });
      await folders
        .undo(agentId, runId)
        .catch((error) =>
          log.warn({ agent_id: agentId, err: error }, "could not remove the files of an aborted start"),
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

  return { resolve, start };
}
