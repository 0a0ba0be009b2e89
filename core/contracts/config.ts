import type { ResourceRules } from "./template.js";

/** One entry of the config's `agents`, validated and with its defaults. */
export interface ConfigAgent {
  agent_id: string;
  template_id: string;
  params: Record<string, unknown>;
  labels: Record<string, string>;
  /** Literal values for this agent alone. */
  env: Record<string, string>;
}

/** What applies to every agent unless its template says otherwise. */
export interface AgentDefaults {
  pass_env: string[];
  labels: Record<string, string>;
  /** For each limit that a template does not set itself. */
  resources?: ResourceRules | undefined;
}

/** The config, validated and with its defaults. */
export interface Config {
  /** In order of start; the first is the master. */
  agents: ConfigAgent[];
  /** Folders of template files, from the config file's folder. */
  templates: string[];
  defaults: AgentDefaults;
  /** What happens to the agents when the daemon stops and the request does not say. Default `stop`. */
  on_daemon_stop: "stop" | "keep";
  /** Checked one by one, with their own messages, when plugins are resolved. */
  plugins: unknown[];
}
