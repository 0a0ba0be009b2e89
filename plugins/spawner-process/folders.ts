import {
  chownSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  writeSync,
} from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { ID_PATTERN, type RunFile, type SpawnSpec } from "../../core/index.js";
import type { User } from "./users.js";

/** Where the files of runs are. */
export interface RunFolders {
  /** How the run ended; beside its folder, where an agent that clears its folder does not reach it. */
  statusFile(agentId: string, runId: string): string;
  /** The agent's own: its parameters, token and result. Readable by its user alone. */
  runFolder(agentId: string, runId: string, user: User | undefined): string;
  logFolder(agentId: string): string;
  /** The runs of an agent that have left something here: the newest at least. */
  runs(agentId: string): string[];
  /** Makes the folders of a run; answers where its files will be, by variable. */
  make(spec: SpawnSpec, user: User | undefined): Record<string, string>;
  /** Writes the files of a run that have content. */
  fill(spec: SpawnSpec, user: User | undefined): void;
  /** Removes what is left of an agent's older runs. */
  prune(agentId: string, keepRunId: string, keepLogs: number): Promise<void>;
  forget(agentId: string): Promise<void>;
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

  return {
    statusFile: (agentId, runId) => join(runsFolder(agentId), `${runId}.status`),
    runFolder,
    logFolder,
    runs: (agentId) => (ID_PATTERN.test(agentId) ? list(runsFolder(agentId)).map(runOf) : []),
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
      if (isOther(user)) ensure(sharedFolder, 0o711);
      const folder = runFolder(agentId, runId, user);
      mkdirSync(folder, { mode: 0o700 });
      if (isOther(user)) chownSync(folder, user.uid, user.gid);
      return Object.fromEntries(spec.files.map(({ env, name }) => [env, join(folder, name)]));
    },
    fill(spec, user) {
      const folder = runFolder(spec.agentId, spec.runId, user);
      for (const file of spec.files) writeFile(join(folder, file.name), file, user);
    },
    async prune(agentId, keepRunId, keepLogs) {
      const runs = runsFolder(agentId);
      const logs = logFolder(agentId);
      const old = list(runs).filter((name) => runOf(name) < keepRunId);
      const newestLogs = [...new Set(list(logs).map(runOf))].sort().reverse();
      const tooOld = new Set(newestLogs.slice(keepLogs + 1));
      await Promise.all([
        ...old.flatMap((name) => [remove(join(runs, name)), remove(join(sharedFolder, name))]),
        ...list(logs).flatMap((name) => (tooOld.has(runOf(name)) ? [remove(join(logs, name))] : [])),
      ]);
    },
    async forget(agentId) {
      const shared = list(runsFolder(agentId)).map((name) => join(sharedFolder, runOf(name)));
      await Promise.all([join(agentsFolder, agentId), ...shared].map(remove));
    },
  };
}

function isOther(user: User | undefined): user is User {
  return user !== undefined && user.uid !== process.getuid?.();
}

/** Without content it is the agent's to make. */
function writeFile(path: string, { content }: RunFile, user: User | undefined): void {
  if (content === undefined) return;
  const fd = openNew(path, user);
  writeSync(fd, content);
  closeSync(fd);
}

/** A new 0600 file, never one that was placed there before. */
export function openNew(path: string, user?: User): number {
  const flags =
    constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW | constants.O_APPEND;
  const fd = openSync(path, flags, 0o600);
  if (isOther(user)) chownSync(path, user.uid, user.gid);
  return fd;
}

function ensure(folder: string, mode: number): void {
  try {
    mkdirSync(folder, { mode });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
}

/** The run that a file or folder belongs to: the name up to the first dot. */
function runOf(name: string): string {
  return name.split(".")[0] ?? "";
}

function list(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}

const remove = (path: string) => rm(path, { recursive: true, force: true });
