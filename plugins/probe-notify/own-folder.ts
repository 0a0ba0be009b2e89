import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hasRoom } from "./sockets.js";

/**
 * Where the sockets of this home's agents are made. Agents of other users cannot enter the home, and only root
 * has such: theirs are in `/run`, which root alone can write to. Else the home itself, which every later daemon
 * finds again; where its path is too long, the user's own run folder. Anybody may make a folder of that name in
 * the last resort, which is then refused.
 */
export function ownFolder(
  home: string,
  { isRoot = process.geteuid?.() === 0, runFolder = process.env.XDG_RUNTIME_DIR ?? "" } = {},
): string {
  const name = `openstarry-notify-${createHash("sha256").update(home).digest("hex").slice(0, 12)}`;
  if (isRoot) return join("/run", name);
  const places = [join(home, "notify"), ...(runFolder.startsWith("/") ? [join(runFolder, name)] : [])];
  return places.find(hasRoom) ?? join(tmpdir(), name);
}
