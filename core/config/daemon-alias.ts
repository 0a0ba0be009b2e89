import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

type Exports = Readonly<Record<string, string | null | { readonly default: string }>>;

/**
 * The files of the running daemon by the names under which its package exports them, so that a config or plugin
 * imports the daemon that loads it from wherever it lies. Read from `package.json`, which is the one list of exports;
 * `*` entries become folder aliases. A daemon that runs from its sources has no `dist`.
 */
export function daemonAlias(): Record<string, string> {
  const root = packageRoot();
  const { name, exports } = JSON.parse(readFileSync(new URL("package.json", root), "utf8")) as {
    name: string;
    exports: Exports;
  };
  const runsFromSource = import.meta.url.endsWith(".ts");
  const entries = Object.entries(exports).flatMap(([key, target]): [string, string][] => {
    const file = typeof target === "string" ? target : target?.default;
    if (!file?.startsWith("./dist/")) return [];
    const ownFile = runsFromSource ? file.replace("./dist/", "./").replace(/\.js$/, ".ts") : file;
    const [specifier, path] = key.endsWith("/*")
      ? [key.slice(0, -2), ownFile.slice(0, ownFile.indexOf("/*"))]
      : [key, ownFile];
    return [[name + specifier.slice(1), fileURLToPath(new URL(path, root))]];
  });
  return Object.fromEntries(entries);
}

function packageRoot(): URL {
  let folder = new URL(".", import.meta.url);
  while (!existsSync(new URL("package.json", folder)) && folder.pathname !== "/")
    folder = new URL("..", folder);
  return folder;
}
