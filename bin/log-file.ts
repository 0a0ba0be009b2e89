import { closeSync, constants, fchmodSync, fstatSync, lstatSync, openSync, renameSync } from "node:fs";
import { join } from "node:path";
import { OpenStarryError } from "../core/errors.js";
import { HOME_FILES } from "./home.js";

const ROTATE_ABOVE_BYTES = 10 * 2 ** 20;

/**
 * Opens `daemon.log` for appending, 0600. One over 10 MiB becomes `daemon.log.1` first (at a start
 * only: a running daemon never moves its own log). Throws `home_unusable` when something else than a
 * plain file lies there.
 */
export function openLogFile(home: string, rotateAboveBytes = ROTATE_ABOVE_BYTES): number {
  const path = join(home, HOME_FILES.log);
  const size = lstatSync(path, { throwIfNoEntry: false })?.size ?? 0;
  if (size > rotateAboveBytes) renameSync(path, `${path}.1`);
  try {
    const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
    const fd = openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600);
    if (!fstatSync(fd).isFile()) {
      closeSync(fd);
      throw new Error("it is not a plain file");
    }
    fchmodSync(fd, 0o600);
    return fd;
  } catch (cause) {
    throw new OpenStarryError("home_unusable", {
      detail: `${path} cannot be written: ${(cause as Error).message}`,
      hint: "remove it and start again",
      cause,
    });
  }
}
