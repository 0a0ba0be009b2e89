import { basename, extname } from "node:path";
import type { Loader } from "cosmiconfig";
import { Explorer } from "cosmiconfig/dist/Explorer.js";
import { OpenStarryError } from "../contracts/errors.js";
import { type DataText, parseData } from "./data-text.js";
import { expandVariables } from "./expand-variables.js";
import { importDefault } from "./import-module.js";
import { type ReadTextOptions, readTextFile } from "./text-file.js";

const CODE_EXTENSIONS = [".ts", ".mts", ".js", ".mjs", ".cjs"];
const DATA_EXTENSIONS = [".json", ".yaml", ".yml"];
const EXTENSIONS = [...CODE_EXTENSIONS, ...DATA_EXTENSIONS];

/** In the order in which they are looked for in each folder. */
export const CONFIG_NAMES: readonly string[] = [
  ...EXTENSIONS.map((extension) => `openstarry.config${extension}`),
  ".openstarryrc",
  ...EXTENSIONS.map((extension) => `.openstarryrc${extension}`),
  "package.json",
];

const MAX_CONFIG_BYTES = 2 ** 20;
/** In package.json. */
export const PACKAGE_KEY = "openstarry";

export interface ConfigReaderOptions {
  /** For `${VAR}` in YAML and JSON. */
  env: Readonly<Record<string, string | undefined>>;
  /** See `readTextFile`. */
  asRoot?: boolean;
}

/** A config as it stands in its file, variables expanded. */
export interface FoundConfig {
  file: string;
  value: unknown;
  /** Absent for TypeScript and JavaScript. */
  lineOf?: DataText["lineOf"];
}

/** Answers `undefined` for a file that is not there, and for a package.json without our key. */
export type ConfigReader = (file: string) => Promise<FoundConfig | undefined>;

/** Reads one config file at a time. */
export function createConfigReader({ env, asRoot }: ConfigReaderOptions): ConfigReader {
  const limits: ReadTextOptions = {
    maxBytes: MAX_CONFIG_BYTES,
    code: "config_invalid",
    what: "config",
    asRoot,
  };
  return async (file) => {
    refuseUnknownFormat(file);
    const isPackage = basename(file, extname(file)) === "package";
    if (isPackage && !(await mentionsConfig(file, limits))) return undefined;
    // Read before cosmiconfig reads it, whose limits are those of memory; what is parsed is this text.
    const text = await readTextFile(file, limits);
    if (text === undefined) return undefined;
    const { value, data } = await explore(file, text, limits);
    if (isPackage && value === undefined) return undefined;
    if (!data) return { file, value };
    const prefix = isPackage ? [PACKAGE_KEY] : [];
    const lineOf = (path: readonly PropertyKey[]) => data.lineOf([...prefix, ...path]);
    const expanded = expandVariables(value, env, (path, problem, hint) => {
      const detail = `config ${file}: line ${lineOf(path)}: ${problem}`;
      throw new OpenStarryError("config_invalid", { detail, hint });
    });
    return { file, value: expanded, lineOf };
  };
}

/**
 * Lets cosmiconfig choose the loader and take our key out of a package.json. Its explorer is used without
 * its usual front door: that one first looks for a config of cosmiconfig's own in the current folder,
 * `.config/config.js` among them, and runs it.
 */
async function explore(
  file: string,
  text: string,
  limits: ReadTextOptions,
): Promise<{ value: unknown; data?: DataText }> {
  const parsed: { data?: DataText } = {};
  const loadCode: Loader = async () => withoutImports(file, await importConfig(file, limits));
  const loadData: Loader = async () => {
    const format = extname(file) === "" ? "either" : extname(file) === ".json" ? "json" : "yaml";
    const data = await parseData(text, { format, code: "config_invalid", what: `config ${file}` });
    parsed.data = data;
    return withoutImports(file, data.value);
  };
  const explorer = new Explorer({
    moduleName: PACKAGE_KEY,
    packageProp: [PACKAGE_KEY],
    searchPlaces: [...CONFIG_NAMES],
    ignoreEmptySearchPlaces: false,
    cache: false,
    mergeImportArrays: false,
    mergeSearchPlaces: false,
    searchStrategy: "none",
    transform: (result) => result,
    loaders: {
      ...Object.fromEntries(CODE_EXTENSIONS.map((extension) => [extension, loadCode])),
      ...Object.fromEntries(DATA_EXTENSIONS.map((extension) => [extension, loadData])),
      noExt: loadData,
    },
  });
  const result = await explorer.load(file);
  return { value: result?.config ?? undefined, ...parsed };
}

/** Any other package.json is nobody's business here, whoever owns it and whatever is wrong with it. */
async function mentionsConfig(file: string, limits: ReadTextOptions): Promise<boolean> {
  const text = await readTextFile(file, { ...limits, asRoot: false });
  return text?.includes(`"${PACKAGE_KEY}"`) ?? false;
}

async function importConfig(file: string, limits: ReadTextOptions): Promise<unknown> {
  const hint = "write: export default defineConfig({ agents: [] })";
  const value = await importDefault(file, { ...limits, fresh: true, hint });
  if (typeof value === "object" && value !== null) return value;
  throw new OpenStarryError("config_invalid", {
    detail: `config ${file}: its default export is a ${typeof value}, not an object`,
    hint,
  });
}

/** cosmiconfig would read other files where this key says so. */
function withoutImports(file: string, value: unknown): unknown {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, "$import")) return value;
  throw new OpenStarryError("config_invalid", {
    detail: `config ${file}: unknown key "$import"`,
    hint: "write the config in one file; a TypeScript config may import others",
  });
}

function refuseUnknownFormat(file: string): void {
  const extension = extname(file);
  if (extension === "" || EXTENSIONS.includes(extension)) return;
  throw new OpenStarryError("config_invalid", {
    detail: `config ${file}: "${extension}" is no format that is read`,
    hint: `give a file that ends in one of: ${EXTENSIONS.join(" ")}`,
  });
}
