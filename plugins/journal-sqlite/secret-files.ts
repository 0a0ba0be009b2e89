import {
  closeSync,
  constants,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { ID_PATTERN, OpenStarryError } from "../../core/index.js";

/**
 * The values given for single agents: `agents/{agent_id}/env.json`, 0600, one JSON object each. No
 * values, no file.
 */
export interface SecretFiles {
  get(agentId: string): Record<string, string>;
  set(agentId: string, values: Readonly<Record<string, string>>): void;
  /** Nothing to remove is no error. */
  remove(agentId: string): void;
  /** Removes what a crash left behind: files of agents for which `known` is false. */
  sweep(known: (agentId: string) => boolean): void;
}

const FILE = "env.json";
/** A fixed name: what a crash left under it is found and removed. The daemon's lock sees to one writer. */
const TEMPORARY = ".env.json.tmp";

/**
 * All of it is synchronous: the files are tiny and rare, and so no write of a value can end up behind
 * the removal of its agent.
 */
export function createSecretFiles(dataDir: string): SecretFiles {
  const agentsDir = join(dataDir, "agents");
  const pathOf = (agentId: string) => join(agentsDir, agentId, FILE);

  const get = (agentId: string) => {
    // Most agents have none: without an exception this costs microseconds.
    if (!ID_PATTERN.test(agentId) || !lstatSync(pathOf(agentId), { throwIfNoEntry: false })) return {};
    assertOwnFolder(agentsDir);
    assertOwnFolder(join(agentsDir, agentId));
    return parseValues(readNoFollow(pathOf(agentId)), pathOf(agentId));
  };

  const set = (agentId: string, values: Readonly<Record<string, string>>) => {
    if (!ID_PATTERN.test(agentId)) {
      throw new OpenStarryError("input_invalid", {
        detail: `"${agentId.slice(0, 80)}" cannot have values of its own: it is no agent_id`,
      });
    }
    if (Object.keys(values).length === 0) return remove(agentId);
    const folder = join(agentsDir, agentId);
    for (const path of [agentsDir, folder]) {
      if (!lstatSync(path, { throwIfNoEntry: false })) mkdirSync(path, { mode: 0o700 });
      assertOwnFolder(path);
    }
    writeAtomically(folder, JSON.stringify(values));
  };

  const remove = (agentId: string) => {
    if (!ID_PATTERN.test(agentId)) return;
    const found = [FILE, TEMPORARY].map((name) => unlinkIfThere(join(agentsDir, agentId, name)));
    if (!found.includes(true)) return;
    try {
      rmdirSync(join(agentsDir, agentId));
    } catch {
      // Others keep things of the agent in the same folder; whoever removes last, removes it.
    }
  };

  const sweep = (known: (agentId: string) => boolean) => {
    if (!lstatSync(agentsDir, { throwIfNoEntry: false })?.isDirectory()) return;
    for (const entry of readdirSync(agentsDir)) {
      if (known(entry)) unlinkIfThere(join(agentsDir, entry, TEMPORARY));
      else remove(entry);
    }
  };

  return { get, set, remove, sweep };
}

function unusable(path: string, what: string, cause?: unknown): OpenStarryError {
  return new OpenStarryError("home_unusable", {
    detail: `${path} ${what}`,
    hint: "put it right, or remove it and give the agent's values again",
    cause,
  });
}

function assertOwnFolder(path: string): void {
  if (!lstatSync(path).isDirectory())
    throw unusable(path, "is not a folder (a symbolic link is not followed)");
}

function readNoFollow(path: string): string {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (cause) {
    throw unusable(path, "cannot be read (a symbolic link is not followed)", cause);
  }
  try {
    return readFileSync(fd, "utf8");
  } finally {
    closeSync(fd);
  }
}

/** The content stays out of the error: it is secret. */
function parseValues(text: string, path: string): Record<string, string> {
  let values: unknown;
  try {
    values = JSON.parse(text);
  } catch {
    throw unusable(path, "is not JSON");
  }
  const valid =
    typeof values === "object" &&
    values !== null &&
    !Array.isArray(values) &&
    Object.values(values).every((value) => typeof value === "string");
  if (!valid) throw unusable(path, "is not an object of strings");
  return values as Record<string, string>;
}

/** Answers whether something was there. */
function unlinkIfThere(path: string): boolean {
  if (!lstatSync(path, { throwIfNoEntry: false })) return false;
  unlinkSync(path);
  return true;
}

function writeAtomically(folder: string, text: string): void {
  const temporary = join(folder, TEMPORARY);
  unlinkIfThere(temporary);
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const fd = openSync(temporary, flags, 0o600);
  try {
    writeFileSync(fd, text);
    fsyncSync(fd);
  } catch (error) {
    unlinkSync(temporary);
    throw error;
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, join(folder, FILE));
  const folderFd = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    // The new name itself must survive a loss of power.
    fsyncSync(folderFd);
  } finally {
    closeSync(folderFd);
  }
}
