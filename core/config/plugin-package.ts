import { existsSync, realpathSync, statSync } from "node:fs";
import { isBuiltin } from "node:module";
import { dirname, extname, join, resolve, sep } from "node:path";
import { exports as exportsOf } from "resolve.exports";
import { OpenStarryError } from "../contracts/errors.js";
import { readTextFile } from "./text-file.js";

/** A package name as npm has it, and perhaps a path within the package. */
const PACKAGE_NAME = /^((?:@[a-z0-9~-][a-z0-9._~-]*\/)?[a-z0-9~-][a-z0-9._~-]*)((?:\/[A-Za-z0-9._~-]+)*)$/;
const MAX_PACKAGE_JSON_BYTES = 2 ** 20;

/**
 * The file of a package that is installed for one of `folders`, as Node's own import would find it: in
 * `node_modules` of the folder or of one above. `undefined` when there is none. Rejects with
 * `plugin_not_found` for what is no name of a package, and with `plugin_invalid` for a broken package.
 */
export async function resolvePackage(name: string, folders: readonly string[]): Promise<string | undefined> {
  const [, packageName, path = ""] = PACKAGE_NAME.exec(name) ?? [];
  if (packageName === undefined || isBuiltin(name) || /\/\.{1,2}(\/|$)/.test(name)) {
    throw new OpenStarryError("plugin_not_found", {
      detail: `"${name}" is neither a built-in plugin, nor a path, nor the name of a package`,
      hint: "a path begins with ./ or ../ or /; addresses and modules of Node itself are not loaded",
    });
  }
  for (const start of folders) {
    for (let folder = resolve(start); ; folder = dirname(folder)) {
      const found = join(folder, "node_modules", packageName);
      if (existsSync(join(found, "package.json"))) return packageEntry(found, `.${path}`);
      if (folder === dirname(folder)) break;
    }
  }
  return undefined;
}

/** The file that a package means by `subpath` (`.` for the package itself). */
export async function packageEntry(folder: string, subpath: string): Promise<string> {
  const refuse = (problem: string) =>
    new OpenStarryError("plugin_invalid", { detail: `package ${folder}: ${problem}` });
  const target = targetOf(await readManifest(folder, refuse), subpath);
  if (target === undefined) throw refuse(`its package.json exports no "${subpath}"`);
  const file = existingFile(resolve(folder, target));
  if (file === undefined) throw refuse(`there is no file ${target}, which its package.json names`);
  if (!realpathSync(file).startsWith(realpathSync(folder) + sep))
    throw refuse(`${target} lies outside of it`);
  return file;
}

interface Manifest {
  exports?: unknown;
  main?: unknown;
}

async function readManifest(folder: string, refuse: (problem: string) => OpenStarryError): Promise<Manifest> {
  const limits = { maxBytes: MAX_PACKAGE_JSON_BYTES, code: "plugin_invalid", what: "plugin" } as const;
  const text = await readTextFile(join(folder, "package.json"), limits);
  try {
    return Object(JSON.parse(text ?? "")) as Manifest;
  } catch {
    throw refuse("its package.json is not valid JSON");
  }
}

/** Node's rules for `exports` and `main`; what can only be required is taken too. */
function targetOf(manifest: Manifest, subpath: string): string | undefined {
  const { exports, main } = manifest;
  if (exports === undefined || exports === null) {
    return subpath === "." ? (typeof main === "string" && main !== "" ? main : "index.js") : subpath;
  }
  for (const require of [false, true]) {
    try {
      const [target] = exportsOf({ name: "", ...manifest }, subpath, { require }) || [];
      if (target !== undefined) return target;
    } catch {
      // It throws for what is not exported.
    }
  }
  return undefined;
}

/** `main` may leave the extension out, or name a folder. */
function existingFile(path: string): string | undefined {
  const candidates =
    extname(path) === "" ? [path, `${path}.js`, join(path, "index.js")] : [path, join(path, "index.js")];
  return candidates.find((it) => statSync(it, { throwIfNoEntry: false })?.isFile());
}
