import { createHash } from "node:crypto";
import { lstatSync, mkdirSync, type Stats } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { OpenStarryError } from "../../core/index.js";

/** Longer ones do not fit into the kernel's `sockaddr_un` and would be cut off silently. */
const MAX_PATH_BYTES = 107;

/**
 * Where a socket of this folder is: in it, or in a folder of its own under the system's temporary one
 * when that path is too long. Throws `home_unusable` for a folder there that somebody else could use.
 */
export function socketPath(home: string, name: string): string {
  const wanted = join(home, name);
  if (Buffer.byteLength(wanted) <= MAX_PATH_BYTES) return wanted;
  const folder = join(tmpdir(), `openstarry-${createHash("sha256").update(home).digest("hex").slice(0, 16)}`);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const stats = lstatSync(folder);
  const isOwn = stats.isDirectory() && stats.uid === process.geteuid?.() && (stats.mode & 0o077) === 0;
  const path = join(folder, name);
  if (isOwn && Buffer.byteLength(path) <= MAX_PATH_BYTES) return path;
  throw new OpenStarryError("home_unusable", {
    detail: `${isOwn ? `${path} is too long for a socket` : `${folder} can be used by others`}`,
    hint: "choose a shorter --home; the daemon's own socket can be switched off with the option socket of http-api",
  });
}

/**
 * Throws unless the path is free or holds the socket of a daemon that is gone: `daemon_running` when
 * somebody answers there, `home_unusable` when it is something else.
 */
export async function assertReplaceable(path: string): Promise<void> {
  const stats: Stats | undefined = lstatSync(path, { throwIfNoEntry: false });
  if (!stats) return;
  if (!stats.isSocket()) {
    throw new OpenStarryError("home_unusable", {
      detail: `${path} is not a socket, and is not replaced`,
      hint: `see what put it into ${dirname(path)}, and move it away`,
    });
  }
  const failure = await new Promise<string | undefined>((resolve) => {
    const probe = connect(path);
    probe.once("error", (error: NodeJS.ErrnoException) => resolve(error.code));
    probe.once("connect", () => {
      probe.destroy();
      resolve(undefined);
    });
  });
  if (failure === "ECONNREFUSED" || failure === "ENOENT") return;
  throw new OpenStarryError("daemon_running", {
    detail: `somebody listens at ${path}${failure === undefined ? "" : ` (${failure})`}`,
    hint: "stop that daemon first, or use another --home",
  });
}
