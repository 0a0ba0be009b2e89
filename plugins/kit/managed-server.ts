import { accessSync, constants, statSync } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";
import { isLive, OpenStarryError, type PluginContext, type ServiceSpec } from "../../core/index.js";

/** A server found on this machine that a plugin runs for the agents, as the service `svc:NAME`. */
export interface ManagedServer {
  /**
   * At the plugin's start. Prepares it, so that what is missing is told now and not in the night; runs it when
   * it is `eager`, or when an earlier daemon ran it: what nobody asks for again is ended.
   */
  start(): Promise<void>;
  /** Somebody is about to use it: runs it, also after it was given up. Returns at once. */
  wanted(): void;
  /** Why it does not run, in words. That it answers is for its client to know. */
  health(): string | undefined;
}

export interface ManagedServerOptions {
  name: string;
  /** Run it at the daemon's start, not at the first need. */
  eager: boolean;
  /**
   * Prepares what it needs (folders, secrets, its own config) and says what is run. Asked before every start,
   * so it changes nothing that is there already.
   */
  template(): ServiceSpec["template"] | Promise<ServiceSpec["template"]>;
}

export function createManagedServer(
  { services, log }: Pick<PluginContext, "services" | "log">,
  { name, eager, template }: ManagedServerOptions,
): ManagedServer {
  let problem: string | undefined;
  /** Many ask for it at a time. */
  let isBeingBroughtUp = false;

  async function ensure(): Promise<void> {
    await services.ensure(name, { template: await template() });
    problem = undefined;
  }

  return {
    async start() {
      if (eager || services.get(name)) await ensure();
      else await template();
    },
    wanted() {
      const { state } = services.get(name) ?? {};
      if (isBeingBroughtUp || (state !== undefined && isLive(state))) return;
      isBeingBroughtUp = true;
      ensure()
        .catch((err) => {
          problem = err instanceof Error ? err.message : String(err);
          log.error({ err, service: `svc:${name}` }, "the server cannot be run");
        })
        .finally(() => {
          isBeingBroughtUp = false;
        });
    },
    health() {
      const service = services.get(name);
      // It may have come back by itself: then nobody brings it up again.
      if (service?.state === "running") problem = undefined;
      if (problem !== undefined) return problem;
      if (!service) return `svc:${name} is started when it is needed`;
      if (service.state === "running") return undefined;
      return `svc:${name} is ${service.state}${service.reason ? `: ${service.reason}` : ""}`;
    },
  };
}

export interface Program {
  /** As its package calls it, such as `redis-server`. */
  name: string;
  /** Said by the config; then it is looked for nowhere else. */
  path?: string | undefined;
  /** Folders besides those of PATH: some packages keep their servers out of it. */
  folders?: readonly string[];
  /** How to get it, as a sentence: `apt install redis-server`. */
  install: string;
  /** The plugin that needs it, for the message. */
  plugin: string;
}

/** The file of a server's program. Throws `config_invalid`, which says how to install it. */
export function findProgram({ name, path, folders = [], install, plugin }: Program): string {
  const places = (process.env["PATH"] ?? "").split(delimiter).filter(isAbsolute);
  // Not in the PATH of every user and every service.
  const usual = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
  const files = path === undefined ? [...places, ...usual, ...folders].map((it) => join(it, name)) : [path];
  const found = files.find(isProgram);
  if (found !== undefined) return found;
  throw new OpenStarryError("config_invalid", {
    detail: `${plugin} is to run ${name}, ${path === undefined ? "which is not installed" : `and ${path} is no program`}`,
    hint: `install it (${install}), ${path === undefined ? 'name its file with the option "program"' : 'correct the option "program"'}, or name a server that runs with "url"`,
  });
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    // Not there, or not for us: the next place.
    return false;
  }
}
