import { statSync } from "node:fs";
import { checkSetup, problemText } from "../../core/config/check-setup.js";
import { type LoadedConfig, loadConfig } from "../../core/config/load-config.js";
import { type BuiltinPlugins, loadPlugins, type RenamedPlugins } from "../../core/config/load-plugins.js";
import { sectionOrigins } from "../../plugins/builtins.js";
import { withTemplateFolders } from "../daemon/daemon-setup.js";

export interface ValidateOptions {
  /** `--config`; absent: searched for as at a start. */
  configFile?: string;
  cwd: string;
  env: Readonly<Record<string, string | undefined>>;
  builtins: BuiltinPlugins;
  renamed: RenamedPlugins;
  /** The daemon's folder: its templates count, too. */
  home: string;
}

export interface ValidateReport {
  /** The config file; absent: there is none. */
  file?: string;
  /** The ids of the config's agents. */
  agents: string[];
  /** The ids of the valid templates. */
  templates: string[];
  /** The names of the plugins, in the order in which they would be set up. */
  plugins: string[];
  /** What works and should be written otherwise. */
  notices: string[];
  /** Everything that a start would refuse; empty when it would not. */
  problems: string[];
}

/** Checks the config, its plugins and the templates, and starts nothing. Does not reject. */
export async function validateConfig(options: ValidateOptions): Promise<ValidateReport> {
  const { configFile, cwd, env, home } = options;
  let loaded: LoadedConfig;
  try {
    loaded = await loadConfig({ cwd, env, configFile });
  } catch (error) {
    return { agents: [], templates: [], plugins: [], notices: [], problems: [problemText(error)] };
  }
  const { config, file, folder } = loaded;
  const builtins = withTemplateFolders(options.builtins, config.templates);
  const notices: string[] = [];
  const onNotice = (notice: string) => void notices.push(notice);
  const from = {
    folder,
    builtins,
    renamed: options.renamed,
    onNotice,
    file,
  };
  const problems = config.templates
    .filter((path) => !statSync(path, { throwIfNoEntry: false })?.isDirectory())
    .map((path) => `templates: there is no folder ${path}`);
  let areLoaded = true;
  const plugins = await loadPlugins({ ...from, entries: config.plugins }).catch((error: unknown) => {
    areLoaded = false;
    problems.push(problemText(error));
    // The templates are looked at all the same, with what comes with the daemon.
    return loadPlugins({ ...from, entries: [] });
  });
  const report = await checkSetup({ config, plugins, dataDir: home, sectionOrigins });
  return {
    file,
    agents: config.agents.map(({ agent_id }) => agent_id),
    templates: report.templates,
    plugins: areLoaded ? report.plugins : [],
    notices,
    problems: [...problems, ...report.problems],
  };
}
