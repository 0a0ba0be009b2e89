import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { notRunning } from "../context.js";
import { HOME_FILES, readPrivateFile, writePrivateFile } from "../daemon/home.js";
import { lockHolder } from "../daemon/lock.js";
import type { CommandHandler } from "../invocation.js";

/** Prints where the operator's token lies, or the token itself. */
export const token: CommandHandler<{ show?: boolean }> = async ({ home, options, terminal }) => {
  const path = join(home, HOME_FILES.token);
  const content = readPrivateFile(path);
  if (content === undefined) throw notRunning(home);
  terminal.print(options.show ? content.trim() : path);
  return undefined;
};

/** Puts a new token in its place, also where the old one was removed: 32 random bytes, as the daemon makes them. It counts from the next request on. */
export const rotate: CommandHandler = async ({ home, terminal }) => {
  const path = join(home, HOME_FILES.token);
  if (readPrivateFile(path) === undefined && lockHolder(home) === undefined) throw notRunning(home);
  writePrivateFile(path, `${randomBytes(32).toString("base64url")}\n`);
  terminal.print(`A new token is in ${path}; the old one is no longer valid.`);
  return undefined;
};
