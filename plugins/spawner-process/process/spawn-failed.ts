import { OpenStarryError, SpawnDeferred, type SpawnSpec } from "../../../core/index.js";
import { ENDED_EARLY } from "./shim.js";

/** Shortages that pass and are not the agent's fault, by error code. */
const SHORTAGES: Readonly<Record<string, string>> = {
  ENOSPC: "the disk is full",
  EDQUOT: "the disk quota is used up",
  EMFILE: "there are no file descriptors left",
  ENFILE: "there are no file descriptors left",
  EAGAIN: "the system allows no more processes",
  ENOMEM: "there is no memory left",
  [ENDED_EARLY]: "its process ended before it could be held, as it does where no more processes are allowed",
};
/** The pause before the start is tried again. */
const RETRY_AFTER_MS = 2_000;

/** Converts the cause of a failed start: `SpawnDeferred` for a shortage that passes, else `spawn_failed`. */
export function spawnFailed(spec: SpawnSpec, cause: unknown): OpenStarryError {
  const { code = "", message } = cause as NodeJS.ErrnoException;
  const shortage = SHORTAGES[code];
  if (shortage !== undefined) return new SpawnDeferred(shortage, { retryAfterMs: RETRY_AFTER_MS });
  const why =
    code === "E2BIG" ? "its arguments and environment are too long for one process" : code || message;
  return new OpenStarryError("spawn_failed", {
    detail: `agent ${spec.agentId} could not be started: ${why}`,
    hint: "check the daemon's log; a resource may have to be freed first",
    cause,
  });
}
