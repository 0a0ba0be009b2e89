import { join } from "node:path";
import { type AdoptSpec, type Spawner, type SpawnSpec, withDeadline } from "../../core/index.js";
import { findUser } from "../kit/users.js";
import { oomScoreOfAgents } from "./limits/oom-score.js";
import { limitProcesses } from "./limits/rlimits.js";
import { readTail } from "./logs/output-tail.js";
import { punchByTool } from "./logs/punch-hole.js";
import { readLogs } from "./logs/read.js";
import { createRotationScheduler } from "./logs/rotation-scheduler.js";
import { STREAMS } from "./logs/segments.js";
import { execInRun } from "./process/exec.js";
import { createToolFinder, dropTo } from "./process/privileges.js";
import { createRunHandle, type OwnedRun } from "./process/run-handle.js";
import { createRunStarter } from "./process/start-run.js";
import { type ProcessTarget, parseTarget } from "./process/target.js";
import type { ProcessSpawnerDeps } from "./spawner-deps.js";
import { endLeftovers } from "./tree/end-tree.js";
import { bootId, isAlive } from "./tree/identity.js";
import { reapOrphans, treesOf } from "./tree/orphans.js";
import { createTreeWatch } from "./tree/tree-watch.js";

/** Runs agents as operating system processes behind a gated shim. */
export interface ProcessSpawner extends Spawner {
  /** Releases all processes, which keep running. Resolves when the spawner no longer writes to their output. */
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

  const starter = createRunStarter({ deps, tool, oomScore });

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
      shimExit,
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

  /** Returns which agent a run belongs to, by the files that it has now. */
  function ownersOnDisk(): (runId: string) => string | undefined {
    const owners = new Map(
      folders.agents().flatMap((agentId) => folders.runs(agentId).map((runId) => [runId, agentId] as const)),
    );
    return (runId) => owners.get(runId);
  }

  /** Returns the recorded cgroup only if it is this run's: a damaged record must not lead to another run's. */
  function ownCgroupOnly(runId: string, { cgroup, ...identity }: ProcessTarget): string | undefined {
    if (cgroup === undefined || cgroup === cgroups?.pathOf(runId)) return cgroups && cgroup;
    const isIts = isAlive(identity) && cgroups?.isGroupOf(cgroup, runId, identity.pid);
    return isIts ? cgroup : undefined;
  }

  return {
    name: "process",
    capabilities: { adopt: true },
    check: async (spec) => void starter.resolve(spec),
    spawn: (spec, commit) =>
      starter.start(spec, commit, (target, shimExit) => own(spec, target, shimExit).handle),
    async adopt(spec) {
      const recorded = parseTarget(spec.target);
      const target = recorded && { ...recorded, cgroup: ownCgroupOnly(spec.runId, recorded) };
      if (!target) return { outcome: { status: { kind: "lost" }, note: "its record names no process" } };
      if (target.boot_id !== bootId()) return { outcome: { status: { kind: "lost" }, cause: "host_reboot" } };
      if (target.pid === process.pid) return { outcome: { status: { kind: "lost" }, note: NAMES_DAEMON } };
      const { handle, isOver } = own(spec, target);
      if (!isOver()) return { handle };
      // Its leftovers may hang in the kernel: the other runs must be adopted all the same.
      const late = "its leftovers have not ended";
      return withDeadline(clock, ADOPT_PATIENCE_MS, late, () => handle.exit).then(
        (outcome) => ({ outcome }),
        () => ({ handle }),
      );
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
        openFiles,
        oomScore,
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
/** The grace period of agents without a readable record. */
const DISCARD_GRACE_MS = 10_000;

/** How long the start of the daemon waits for the leftovers of one run that is over. */
const ADOPT_PATIENCE_MS = 5_000;
