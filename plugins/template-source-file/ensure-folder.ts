import { lstat, mkdir } from "node:fs/promises";
import { OpenStarryError } from "../../core/index.js";
import { unusable } from "../kit/atomic-file.js";

/** Makes the folder, for the daemon's user alone, where it is not there. Refuses what is none, links too. */
export async function ensureFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw unusable(`the folder ${folder} cannot be made`, cause);
  }
  if ((await lstat(folder)).isDirectory()) return;
  throw new OpenStarryError("template_read_only", {
    detail: `${folder} is a link, and the daemon writes through none`,
    hint: `list the folder that it leads to under "templates" in the config instead`,
  });
}
