import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { definePlugin, spawner, templateSection } from "../../core/index.js";
import { openControllers } from "./limits/controllers.js";
import { createLimitGroups } from "./limits/limits.js";
import { protectDaemon } from "./limits/oom-score.js";
import { loadPunchHole } from "./logs/punch-hole.js";
import { createRunFolders } from "./process/folders.js";
import { loadPosixSpawn } from "./process/posix-spawn.js";
import { logsSection, stopSection } from "./sections.js";
import { createProcessSpawner } from "./spawner.js";
import { openCgroups } from "./tree/cgroup.js";

const options = z.strictObject({
  /** Put every run into a cgroup of its own where the system allows it. */
  cgroups: z.boolean().default(true),
  /** Make processes and holes in files by calls of libc, where koffi is installed; else by fork and fallocate(1). */
  native: z.boolean().default(true),
  /** Where the folders of agents that run as another user are made. */
  shared_folder: z.string().startsWith("/").optional(),
});

/** The spawner `process`: agents are processes of this machine. */
export default definePlugin({
  name: "spawner-process",
  apiVersion: 1,
  provides: [spawner, templateSection],
  options,
  setup(ctx, { cgroups, native, shared_folder }) {
    const tag = createHash("sha256").update(ctx.dataDir).digest("hex").slice(0, 12);
    const sharedBase = shared_folder ?? (process.getuid?.() === 0 ? "/run" : tmpdir());
    const own = cgroups ? openCgroups(tag) : undefined;
    const processes = createProcessSpawner({
      clock: ctx.clock,
      log: ctx.log,
      home: ctx.dataDir,
      folders: createRunFolders(ctx.dataDir, join(sharedBase, `openstarry-${tag}`)),
      cgroups: own,
      limits: cgroups ? createLimitGroups(openControllers(tag, own)) : undefined,
      native: native ? loadPosixSpawn() : undefined,
      punch: native ? loadPunchHole() : undefined,
      env: process.env,
      onProblem: ctx.daemon.degraded,
    });
    ctx.provide(spawner, processes);
    ctx.provide(templateSection, stopSection);
    ctx.provide(templateSection, logsSection);
    return { start: () => protectDaemon(), stop: () => processes.release() };
  },
});
