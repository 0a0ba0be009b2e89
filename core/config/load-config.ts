import { access, constants } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import type { Config } from "../contracts/config.js";
import { OpenStarryError } from "../contracts/errors.js";
import { validateSync } from "../lib/validate.js";
import { CONFIG_NAMES, createConfigReader, type FoundConfig, PACKAGE_KEY } from "./config-reader.js";
import { configSchema } from "./define-config.js";

export interface LoadConfigOptions {
  /** `--config`: read this and search nowhere. From `cwd` when relative. */
  configFile?: string;
  /** The first folder that is searched. */
  cwd: string;
  /** For `${VAR}` in YAML and JSON, and for where the user's configs lie. */
  env: Readonly<Record<string, string | undefined>>;
  /** The last folder that is searched. Default: /etc/openstarry. */
  systemFolder?: string;
  /** Refuse a file that others than root could have written. Default: whether the process runs as root. */
  asRoot?: boolean;
}

export interface LoadedConfig {
  /** Validated, with its defaults; `templates` are absolute. */
  config: Config;
  /** Absent: no config was found, and `config` is the empty one. */
  file?: string;
  /** What relative paths in it start from; without a file, `cwd`. */
  folder: string;
}

/**
 * Finds and reads the config: `configFile`; else the first that there is in the current folder, the
 * user's config folder and the system's, never in a parent folder. Rejects with `config_not_found` or
 * `config_invalid`, which name the file, the line where there is one, and the field.
 */
export async function loadConfig(options: LoadConfigOptions): Promise<LoadedConfig> {
  const found = await findConfig(options);
  if (!found) return { config: configSchema.parse({}), folder: resolve(options.cwd) };
  const { file, value, lineOf } = found;
  const what = `config ${file}`;
  const folder = dirname(file);
  const config = validateSync(configSchema, value ?? {}, {
    code: "config_invalid",
    what,
    lineOf,
  });
  refuseDuplicates(config, what);
  return {
    config: { ...config, templates: config.templates.map((it) => resolve(folder, it)) },
    file,
    folder,
  };
}

async function findConfig(options: LoadConfigOptions): Promise<FoundConfig | undefined> {
  const read = createConfigReader(options);
  if (options.configFile !== undefined) {
    const file = resolve(options.cwd, options.configFile);
    const found = await read(file);
    if (found) return found;
    throw new OpenStarryError("config_not_found", {
      detail: `config ${file}: there is no such file${file.endsWith("package.json") ? `, or it has no key "${PACKAGE_KEY}"` : ""}`,
      hint: "check the path behind --config, or leave it out to have the usual places searched",
    });
  }
  for (const folder of searchFolders(options)) {
    if (!(await canBeReached(folder))) continue;
    for (const name of CONFIG_NAMES) {
      const found = await read(join(folder, name));
      if (found) return found;
    }
  }
  return undefined;
}

/** The folders that a config is searched in. */
export function searchFolders({ cwd, env, systemFolder = "/etc/openstarry" }: LoadConfigOptions): string[] {
  const base = env["XDG_CONFIG_HOME"];
  // The XDG base directory specification: a relative one is to be ignored.
  const user = base && isAbsolute(base) ? base : join(env["HOME"] || homedir(), ".config");
  return [...new Set([resolve(cwd), join(user, "openstarry"), systemFolder])];
}

/** A folder that the daemon's user has no way into holds no config for it. */
async function canBeReached(folder: string): Promise<boolean> {
  return access(folder, constants.X_OK).then(
    () => true,
    () => false,
  );
}

function refuseDuplicates({ agents }: Config, what: string): void {
  const places = new Map<string, number>();
  agents.forEach(({ agent_id }, index) => {
    const first = places.get(agent_id);
    if (first === undefined) {
      places.set(agent_id, index);
      return;
    }
    throw new OpenStarryError("config_invalid", {
      detail: `${what}: agents[${first}] and agents[${index}] have the same agent_id "${agent_id}"`,
      hint: "give each agent an id of its own",
    });
  });
}
