import {
  closeSync,
  constants,
  fchownSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmdirSync,
  writeFileSync,
} from "node:fs";
import { chmod, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import {
  ID_PATTERN,
  OpenStarryError,
  type RunFile,
  SERVICE_ID_PATTERN,
  type SpawnSpec,
} from "../../../core/index.js";
import type { User } from "../../kit/users.js";
import { isOther } from "./privileges.js";

/** Where the files of runs are. */
export interface RunFolders {
  /** How the run ended; beside its folder, where an agent that clears its folder does not reach it. */
  statusFile(agentId: string, runId: string): string;
  /** The agent's own: its parameters, token and result. Readable by its user alone. */
  runFolder(agentId: string, runId: string, user: User | undefined): string;
  logFolder(agentId: string): string;
  /** Agents that have left something here. */
  agents(): string[];
  /** The runs of an agent that have left something here: the newest at least. */
  runs(agentId: string): string[];
  /** Makes the folders of a run; answers where its files will be, by variable. */
  make(spec: SpawnSpec, user: User | undefined): Record<string, string>;
  /** Writes the files of a run that have content, and gives its folder to its user. */
  fill(spec: SpawnSpec, user: User | undefined): void;
  /** Removes what was made for a run that nobody ran. */
  undo(agentId: string, runId: string): Promise<void>;
  /** Removes what is left of an agent's older runs, but for their output. */
  prune(agentId: string, keepRunId: string): Promise<void>;
  forget(agentId: string): Promise<void>;
  /** Removes the folders of other users' agents that belong to no run which has left anything else. */
  sweepShared(live: ReadonlySet<string>): Promise<void>;
}

/**
 * Below `home`, which nobody else can enter. An agent of another user gets its folder below
 * `sharedFolder` instead, where that user can reach it and no third can.
 */
export function createRunFolders(home: string, sharedFolder: string): RunFolders {
  const agentsFolder = join(home, "agents");
  const runsFolder = (agentId: string) => join(agentsFolder, agentId, "runs");
  const logFolder = (agentId: string) => join(agentsFolder, agentId, "logs");

  function runFolder(agentId: string, runId: string, user: User | undefined): string {
    return isOther(user) ? join(sharedFolder, runId) : join(runsFolder(agentId), runId);
  }

  /** Nothing for a name that is no run's: the path would be that of all of them. */
  function sharedOf(names: readonly string[]): string[] {
    const runs = new Set(names.map(runOf).filter((runId) => ID_PATTERN.test(runId)));
    return [...runs].map((runId) => join(sharedFolder, runId));
  }

  return {
    statusFile: (agentId, runId) => join(runsFolder(agentId), `${runId}.status`),
    runFolder,
    logFolder,
    agents: () => list(agentsFolder),
    runs: (agentId) =>
      ID_PATTERN.test(agentId) || SERVICE_ID_PATTERN.test(agentId)
        ? list(runsFolder(agentId)).map(runOf)
        : [],
    make(spec, user) {
      const { agentId, runId } = spec;
      for (const folder of [
        agentsFolder,
        join(agentsFolder, agentId),
        runsFolder(agentId),
        logFolder(agentId),
      ]) {
        ensure(folder, 0o700);
      }
      if (isOther(user)) ensureOwn(sharedFolder, 0o711);
      const folder = runFolder(agentId, runId, user);
      mkdirSync(folder, { mode: 0o700 });
      return Object.fromEntries(spec.files.map(({ env, name }) => [env, join(folder, name)]));
    },
    fill(spec, user) {
      const folder = runFolder(spec.agentId, spec.runId, user);
      for (const file of spec.files) writeFile(join(folder, file.name), file, user);
      // Last: in a folder of its own, that user could put links where files are about to be made.
      if (isOther(user)) lchownSync(folder, user.uid, user.gid);
    },
    async undo(agentId, runId) {
      const ofRun = (folder: string) => list(folder).filter((name) => runOf(name) === runId);
      const [runs, logs] = [runsFolder(agentId), logFolder(agentId)];
      const shared = sharedOf([runId]);
      await Promise.all(
        [runs, logs]
          .flatMap((folder) => ofRun(folder).map((name) => join(folder, name)))
          .concat(shared)
          .map(remove),
      );
      // Where it would have been the first.
      for (const folder of [runs, logs, join(agentsFolder, agentId)]) removeIfEmpty(folder);
    },
    async prune(agentId, keepRunId) {
      const runs = runsFolder(agentId);
      const old = list(runs).filter((name) => runOf(name) < keepRunId);
      await Promise.all([...old.map((name) => join(runs, name)), ...sharedOf(old)].map(remove));
    },
    async forget(agentId) {
      const shared = sharedOf(list(runsFolder(agentId)));
      await Promise.all([join(agentsFolder, agentId), ...shared].map(remove));
    },
    async sweepShared(live) {
      // In one go, so that no run begins in between.
      const shared = list(sharedFolder);
      const known = new Set(list(agentsFolder).flatMap((agentId) => list(runsFolder(agentId)).map(runOf)));
      const stale = shared.filter((name) => !live.has(name) && !known.has(name));
      await Promise.all(stale.map((name) => remove(join(sharedFolder, name))));
    },
  };
}

/** Without content it is the agent's to make. */
function writeFile(path: string, { content }: RunFile, user: User | undefined): void {
  if (content === undefined) return;
  const fd = openNew(path, user);
  try {
    writeFileSync(fd, content);
  } finally {
    closeSync(fd);
  }
}

/** A new 0600 file, never one that was placed there before. */
export function openNew(path: string, user?: User): number {
  const flags =
    constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW | constants.O_APPEND;
  const fd = openSync(path, flags, 0o600);
  try {
    if (isOther(user)) fchownSync(fd, user.uid, user.gid);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return fd;
}

function ensure(folder: string, mode: number): void {
  try {
    mkdirSync(folder, { mode });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
}

/** Never a folder that somebody else placed there before. */
function ensureOwn(folder: string, mode: number): void {
  ensure(folder, mode);
  const stat = lstatSync(folder);
  if (stat.isDirectory() && stat.uid === process.getuid?.()) return;
  throw new OpenStarryError("spawn_failed", {
    detail: `${folder}, for the agents of other users, is not a folder of the daemon's own user`,
    hint: "remove it, or name another place in the option shared_folder of spawner-process",
  });
}

/** The run that a file or folder belongs to: the name up to the first dot. */
function runOf(name: string): string {
  return name.split(".")[0] ?? "";
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return [];
    throw error;
  }
}

function removeIfEmpty(folder: string): void {
  try {
    rmdirSync(folder);
  } catch {
    // There are others' things in it.
  }
}

/** Folders too that their owner may not write to, such as those of a module cache. */
async function remove(path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EACCES") throw error;
    await makeWritable(path);
    await rm(path, { recursive: true, force: true });
  }
}

/** Gives the owner all rights to a folder and to those below it. Links are not followed. */
async function makeWritable(folder: string): Promise<void> {
  if (!lstatSync(folder).isDirectory()) return;
  await chmod(folder, 0o700);
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) await makeWritable(join(folder, entry.name));
  }
}
