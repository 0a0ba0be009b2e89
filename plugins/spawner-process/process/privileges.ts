import { OpenStarryError } from "../../../core/index.js";
import type { User } from "../../kit/users.js";
import { searchPath } from "./command.js";
import { DEFAULT_PATH } from "./environment.js";

/** Whether an agent of this user runs with other rights than the daemon. */
export function isOther(user: User | undefined): user is User {
  return user !== undefined && user.uid !== process.getuid?.();
}

/**
 * Variables by which the loader, libc or the shell runs code or reads files of somebody's choice:
 * those that ld.so(8) ignores in secure execution, and those of POSIX shells. Until the rights are
 * dropped they would act with the daemon's. TMPDIR is none: nothing makes a file before that.
 */
const ACTS_ON_ANY_PROGRAM =
  /^(LD_|BASH|MALLOC_|SEGFAULT_|(GCONV|GETCONF|LOC|MUSL_LOC|NIS_|NLS)(_?PATH|_DIR)$|(GLIBC_TUNABLES|HOSTALIASES|LOCALDOMAIN|RES_OPTIONS|RESOLV_HOST_CONF|TZDIR|ENV|SHELLOPTS|PS4|IFS|CDPATH|POSIXLY_CORRECT)$)/;

/** Throws `user_invalid` for variables that would reach what still runs with the daemon's rights. */
export function checkEnvironment(env: Readonly<Record<string, string>>, user: User | undefined): void {
  const names = isOther(user) ? Object.keys(env).filter((name) => ACTS_ON_ANY_PROGRAM.test(name)) : [];
  if (names.length === 0) return;
  throw new OpenStarryError("user_invalid", {
    detail: `user: an agent of another user may not be given ${names.join(", ")}: the daemon's user would obey it first`,
    hint: "let the agent's own command set it, e.g. command: env, args: [NAME=value, program]",
  });
}

/** What becomes the other user and then executes what follows: setpriv(1). */
export function dropTo(user: User | undefined, tool: (name: string) => string): string[] {
  if (!isOther(user)) return [];
  return [tool("setpriv"), `--reuid=${user.uid}`, `--regid=${user.gid}`, "--init-groups", "--"];
}

/** Finds programs by the daemon's own `PATH`, each once; an agent's decides nothing before it runs. */
export function createToolFinder(path: string | undefined): (name: string) => string {
  const found = new Map<string, string>();
  return (name) => {
    const file = found.get(name) ?? searchPath(name, `${path ?? ""}:${DEFAULT_PATH}`);
    if (file === undefined) {
      throw new OpenStarryError("spawn_failed", {
        detail: `the program ${name} is not in the daemon's PATH`,
        hint: "install the package util-linux",
      });
    }
    found.set(name, file);
    return file;
  };
}
