import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { parseEnv } from "node:util";
import { OpenStarryError, type SpawnSpec } from "../../../core/index.js";
import type { User } from "../../kit/users.js";

/** All that an agent gets of the daemon's environment without being asked for by name. */
const INHERITED = ["PATH", "HOME", "LANG", "TZ", "TMPDIR", "USER"] as const;
/** Where programs are searched for when nobody says where. */
export const DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin";

/**
 * The environment of one run, from scratch: a few plain variables, `env_file`, `pass_env`, `env`;
 * the later wins. Rejects with `env_missing`; a message never holds a value.
 */
export function buildEnvironment(
  spec: SpawnSpec,
  user: User | undefined,
  daemonEnv: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const env: Record<string, string> = { PATH: DEFAULT_PATH, PYTHONUNBUFFERED: "1" };
  for (const name of INHERITED) copy(env, name, daemonEnv[name]);
  if (user) Object.assign(env, { HOME: user.home, USER: user.name });
  for (const file of spec.envFiles) Object.assign(env, readEnvFile(resolve(spec.baseDir ?? "/", file)));
  for (const entry of spec.passEnv) {
    const name = entry.replace(/\?$/, "");
    if (daemonEnv[name] === undefined && !entry.endsWith("?")) {
      throw new OpenStarryError("env_missing", {
        detail: `pass_env: the variable ${name}, which template ${spec.templateId} passes on, is not set for the daemon`,
        hint: `set ${name} where the daemon is started, or write "${name}?" if it is optional`,
      });
    }
    copy(env, name, daemonEnv[name]);
  }
  return { ...env, ...spec.env };
}

function copy(env: Record<string, string>, name: string, value: string | undefined) {
  if (value !== undefined) env[name] = value;
}

function readEnvFile(path: string): Record<string, string> {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new OpenStarryError("env_missing", {
      detail: `env_file: ${path} cannot be read (${(cause as NodeJS.ErrnoException).code})`,
      hint: "create it with lines of NAME=value, or take it out of env_file",
      cause,
    });
  }
  const values = parseEnv(text) as Record<string, string>;
  return Object.fromEntries(Object.entries(values).filter(([name]) => !name.startsWith("OPENSTARRY_")));
}
