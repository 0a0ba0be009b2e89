import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { notRunning } from "../context.js";
import { HOME_FILES, readPrivateFile, writePrivateFile } from "../daemon/home.js";
import { lockHolder } from "../daemon/lock.js";
import type { CommandHandler } from "../invocation.js";

/** Prints the path of the operator token file, or the token itself. */
export const token: CommandHandler<{ show?: boolean }> = async ({ home, options, terminal }) => {
  const path = join(home, HOME_FILES.token);
  const content = readPrivateFile(path);
  if (content === undefined) throw notRunning(home);
  terminal.print(options.show ? content.trim() : path);
  return undefined;
};

/** Replaces the operator token, or writes a missing one: 32 random bytes, like the daemon. The daemon reads it for each request. */
export const rotate: CommandHandler = async ({ home, terminal }) => {
  const path = join(home, HOME_FILES.token);
  if (readPrivateFile(path) === undefined && lockHolder(home) === undefined) throw notRunning(home);
  writePrivateFile(path, `${randomBytes(32).toString("base64url")}\n`);
  terminal.print(`New token written to ${path}. The old token is no longer valid.`);
  return undefined;
};
