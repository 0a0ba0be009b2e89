import { readFileSync } from "node:fs";
import { OpenStarryError } from "../../core/index.js";

export interface User {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

/** Finds a user by name in passwd(5). Throws `user_invalid` for an unknown user, or one that the daemon may not become. */
export function findUser(name: string): User {
  const entries = readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .map((line) => line.split(":"));
  const entry = entries.find(([user]) => user === name);
  if (!entry) {
    throw new OpenStarryError("user_invalid", {
      detail: `user: there is no user "${name}" on this machine`,
      hint: "name a user of /etc/passwd, or leave user out",
    });
  }
  const user = { name, uid: Number(entry[2]), gid: Number(entry[3]), home: entry[5] || "/" };
  const own = process.getuid?.();
  if (own !== 0 && own !== user.uid) {
    throw new OpenStarryError("user_invalid", {
      detail: `user: the daemon runs as uid ${own} and may not start processes as ${name}`,
      hint: "leave user out, or run the daemon as root",
    });
  }
  return user;
}
