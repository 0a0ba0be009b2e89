import { isService } from "../contracts/agent.js";
import type { Config } from "../contracts/config.js";
import type { Endpoint } from "../contracts/plugin.js";
import type { SpawnSpec } from "../contracts/spawner.js";
import type { StoredAgent } from "../contracts/stored-agent.js";
import { expandPlaceholders } from "./placeholders.js";
import { limitsOf, osLimitsOf } from "./resources.js";

export interface SpecSources {
  dataDir: string;
  defaults: Config["defaults"];
  endpoints: readonly Endpoint[];
  /** Values given for this agent alone. */
  secrets: Readonly<Record<string, string>>;
  /** The run's credentials; absent where nobody mints any. */
  token?: string;
}

/** What is to be started for one run, before any tap has seen it. */
export function buildSpec(stored: StoredAgent, runId: string, sources: SpecSources): SpawnSpec {
  const { agent, template: pinned, params } = stored;
  const { template } = pinned;
  const expand = (text: string) => expandPlaceholders(text, agent.agent_id, params);
  const env = Object.entries(template.env).map(([name, text]): [string, string] => [name, expand(text)]);
  return Object.freeze({
    agentId: agent.agent_id,
    runId,
    templateId: agent.template_id,
    ...(agent.parent_id === undefined ? {} : { parentId: agent.parent_id }),
    command: template.command,
    args: template.args.map(expand),
    ...(template.cwd === undefined ? {} : { cwd: expand(template.cwd) }),
    ...(pinned.baseDir === undefined ? {} : { baseDir: pinned.baseDir }),
    env: { ...Object.fromEntries(env), ...sources.secrets, ...identityEnv(stored, runId, sources) },
    passEnv: [...(isService(agent) ? [] : sources.defaults.pass_env), ...template.pass_env],
    envFiles: template.env_file,
    files: runFiles(params, sources.token),
    ...(template.user === undefined ? {} : { user: template.user }),
    limits: osLimitsOf(
      limitsOf(template.resources, isService(agent) ? undefined : sources.defaults.resources),
    ),
    stop: template.stop,
    logs: template.logs,
  });
}

function identityEnv(stored: StoredAgent, runId: string, sources: SpecSources): Record<string, string> {
  const { agent } = stored;
  const env: Record<string, string> = {
    OPENSTARRY_AGENT_ID: agent.agent_id,
    OPENSTARRY_TEMPLATE_ID: agent.template_id,
    OPENSTARRY_RUN_ID: runId,
    OPENSTARRY_HOME: sources.dataDir,
  };
  if (agent.parent_id !== undefined) env["OPENSTARRY_PARENT_ID"] = agent.parent_id;
  // What a service needs to know, its plugin tells it.
  for (const endpoint of isService(agent) ? [] : sources.endpoints) {
    const url = endpoint.urlFor({ agent_id: agent.agent_id, run_id: runId });
    if (url !== undefined) env[endpoint.variable ?? `OPENSTARRY_${endpoint.name.toUpperCase()}_URL`] = url;
  }
  return env;
}

function runFiles(params: Record<string, unknown>, token: string | undefined): SpawnSpec["files"] {
  return [
    { env: "OPENSTARRY_PARAMS_FILE", name: "params.json", content: JSON.stringify(params) },
    { env: "OPENSTARRY_RESULT_FILE", name: "result" },
    ...(token === undefined ? [] : [{ env: "OPENSTARRY_TOKEN_FILE", name: "token", content: token }]),
  ];
}

/** What taps made of a spec, with what they may not change put back. */
export function protectSpec(original: SpawnSpec, tapped: SpawnSpec): SpawnSpec {
  const own = ([name]: [string, string]) => name.startsWith("OPENSTARRY_");
  const { parentId: _ignored, ...free } = tapped;
  return Object.freeze({
    ...free,
    agentId: original.agentId,
    runId: original.runId,
    templateId: original.templateId,
    ...(original.parentId === undefined ? {} : { parentId: original.parentId }),
    files: original.files,
    env: Object.fromEntries([
      ...Object.entries(tapped.env).filter((entry) => !own(entry)),
      ...Object.entries(original.env).filter(own),
    ]),
  });
}
