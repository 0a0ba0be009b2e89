import { statSync } from "node:fs";
import { checkSetup, problemText } from "../../core/config/check-setup.js";
import { type LoadedConfig, loadConfig } from "../../core/config/load-config.js";
import { type BuiltinPlugins, loadPlugins, type RenamedPlugins } from "../../core/config/load-plugins.js";
import { sectionOrigins } from "../../plugins/builtins.js";
import { withTemplateFolders } from "../daemon/daemon-setup.js";

export interface ValidateOptions {
  /** `--config`; absent: search as for `start`. */
  configFile?: string;
  cwd: string;
  env: Readonly<Record<string, string | undefined>>;
  builtins: BuiltinPlugins;
  renamed: RenamedPlugins;
  /** The daemon's folder, whose templates are checked too. */
  home: string;
}

export interface ValidateReport {
  /** The config file; absent if there is none. */
  file?: string;
  /** The IDs of the config's agents. */
  agents: string[];
  /** The IDs of the valid templates. */
  templates: string[];
  /** The names of the plugins, in order of setup. */
  plugins: string[];
  /** What works and should be written otherwise. */
  notices: string[];
  /** Everything that would make a start fail; empty if the configuration is valid. */
  problems: string[];
}

/** Checks the config, its plugins and the templates without starting anything. Does not reject. */
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
    .map((path) => `templates: no such folder: ${path}`);
  let areLoaded = true;
  const plugins = await loadPlugins({ ...from, entries: config.plugins }).catch((error: unknown) => {
    areLoaded = false;
    problems.push(problemText(error));
    // The templates are checked all the same, with the built-in plugins.
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
