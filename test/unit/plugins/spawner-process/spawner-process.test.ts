import { join } from "node:path";
import { describe, test } from "vitest";
import { systemClock } from "../../../../core/index.js";
import { loadPunchHole } from "../../../../plugins/spawner-process/logs/punch-hole.js";
import { createRunFolders } from "../../../../plugins/spawner-process/process/folders.js";
import { loadPosixSpawn, type PosixSpawn } from "../../../../plugins/spawner-process/process/posix-spawn.js";
import { createProcessSpawner } from "../../../../plugins/spawner-process/spawner.js";
import { openCgroups } from "../../../../plugins/spawner-process/tree/cgroup.js";
import { testSpawner } from "../../../contract/spawner.js";

const silent = { debug() {}, info() {}, warn() {}, error() {} };

function subject(home: string, withCgroups: boolean, native: PosixSpawn | undefined) {
  const spawner = createProcessSpawner({
    clock: systemClock,
    log: silent,
    home,
    folders: createRunFolders(home, join(home, "shared")),
    cgroups: withCgroups ? openCgroups(`test-${process.pid}`) : undefined,
    native,
    punch: native && loadPunchHole(),
    env: process.env,
    onProblem() {},
  });
  return { spawner, release: () => spawner.release() };
}

describe("by fork, without cgroups", () => {
  testSpawner({ test, factory: (home) => subject(home, false, undefined) });
});

describe("by posix_spawn, without cgroups", () => {
  testSpawner({ test, factory: (home) => subject(home, false, loadPosixSpawn()) });
});

describe.runIf(openCgroups(`test-${process.pid}`) !== undefined)("by posix_spawn, with cgroups", () => {
  testSpawner({ test, factory: (home) => subject(home, true, loadPosixSpawn()) });
});
