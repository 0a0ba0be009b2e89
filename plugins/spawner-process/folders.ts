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
import type { SpawnSpec } from "../../core/index.js";
import type { User } from "./users.js";

/** Where the files of runs are. */
export interface RunFolders {
  /** The daemon's side of a run: `status` lies here, where an agent of another user cannot reach it. */
  runFolder(agentId: string, runId: string): string;
  /** The agent's side: its parameters, token and result. Readable by its own user alone. */
  agentFolder(agentId: string, runId: string, user: User | undefined): string;
  logFolder(agentId: string): string;
  /** Makes the folders of a run and writes its files; answers their paths by variable. */
  prepare(spec: SpawnSpec, user: User | undefined): Record<string, string>;
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
  const runFolder = (agentId: string, runId: string) => join(agentsFolder, agentId, "runs", runId);
  const logFolder = (agentId: string) => join(agentsFolder, agentId, "logs");

  function agentFolder(agentId: string, runId: string, user: User | undefined): string {
    return user && user.uid !== process.getuid?.()
      ? join(sharedFolder, runId)
      : join(runFolder(agentId, runId), "agent");
  }

  function prepare(spec: SpawnSpec, user: User | undefined): Record<string, string> {
    const { agentId, runId } = spec;
    const folder = agentFolder(agentId, runId, user);
    mkdirSync(runFolder(agentId, runId), { recursive: true, mode: 0o700 });
    mkdirSync(logFolder(agentId), { recursive: true, mode: 0o700 });
    if (folder.startsWith(sharedFolder)) mkdirSync(sharedFolder, { recursive: true, mode: 0o711 });
    mkdirSync(folder, { mode: 0o700 });
    if (user) chownSync(folder, user.uid, user.gid);
    const paths: Record<string, string> = {};
    for (const file of spec.files) {
      const path = join(folder, file.name);
      paths[file.env] = path;
      // Without content it is the agent's to make.
      if (file.content === undefined) continue;
      const fd = openNew(path, user);
      writeSync(fd, file.content);
      closeSync(fd);
    }
    return paths;
  }

  async function prune(agentId: string, keepRunId: string, keepLogs: number): Promise<void> {
    const runs = join(agentsFolder, agentId, "runs");
    const logs = logFolder(agentId);
    const old = list(runs).filter((runId) => runId < keepRunId);
    await Promise.all(old.flatMap((runId) => [remove(join(runs, runId)), remove(join(sharedFolder, runId))]));
    const withLogs = [...new Set(list(logs).map((name) => name.split(".")[0] ?? ""))].sort().reverse();
    const tooOld = new Set(withLogs.slice(keepLogs + 1));
    await Promise.all(
      list(logs).flatMap((name) => (tooOld.has(name.split(".")[0] ?? "") ? [remove(join(logs, name))] : [])),
    );
  }

  return {
    runFolder,
    agentFolder,
    logFolder,
    prepare,
    prune,
    async forget(agentId) {
      const shared = list(join(agentsFolder, agentId, "runs")).map((runId) => join(sharedFolder, runId));
      await Promise.all([join(agentsFolder, agentId), ...shared].map(remove));
    },
  };
}

/** A new 0600 file, never one that was placed there before. */
export function openNew(path: string, user?: User): number {
  const flags =
    constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW | constants.O_APPEND;
  const fd = openSync(path, flags, 0o600);
  if (user) chownSync(path, user.uid, user.gid);
  return fd;
}

function list(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}

const remove = (path: string) => rm(path, { recursive: true, force: true });
