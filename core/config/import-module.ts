import { pathToFileURL } from "node:url";
import { type ErrorCode, isOpenStarryError, OpenStarryError } from "../contracts/errors.js";
import { daemonAlias } from "./daemon-alias.js";
import { readTextFile } from "./text-file.js";

export interface ImportOptions {
  /** The error code of a module that cannot be loaded. */
  code: ErrorCode;
  /** What it is, for messages: `config`, `plugin`. */
  what: string;
  /**
   * Read the file again even if it was loaded before: what a reload wants. So are the TypeScript and
   * CommonJS files that it imports; what Node imports by itself (packages, `.mjs`) stays as it was.
   */
  fresh?: boolean;
  /** See `readTextFile`. */
  asRoot?: boolean;
}

/** Read once: a new version may be installed over the files of a running daemon. */
const OWN_MODULES = daemonAlias();

const MAX_MODULE_BYTES = 16 * 2 ** 20;

/**
 * The exports of a module in TypeScript or JavaScript. Node's own import is used where it can do it; for
 * TypeScript, for a fresh copy, and for what imports `openstarry-daemon` from a place where it is not
 * installed, jiti is loaded, which gives it the modules of the running daemon.
 */
export async function importModule(file: string, options: ImportOptions): Promise<Record<string, unknown>> {
  const source = await readTextFile(file, { ...options, maxBytes: MAX_MODULE_BYTES });
  if (source === undefined) throw failure(file, options, "there is no such file");
  try {
    if (options.fresh || /\.[cm]?ts$/.test(file)) return await evaluate(file, source);
    return await importNative(file, source);
  } catch (error) {
    if (isOpenStarryError(error)) throw error;
    throw failure(file, options, describe(error, file), error);
  }
}

/**
 * What a module exports by default; a CommonJS module, as a whole. A promise is waited for. Rejects where
 * there is no default export, with `hint`.
 */
export async function importDefault(
  file: string,
  options: ImportOptions & { hint: string },
): Promise<unknown> {
  const exported = Object(await importModule(file, options));
  if ("default" in exported) return exported.default;
  if (!("__esModule" in exported) && exported[Symbol.toStringTag] !== "Module") return exported;
  throw failure(file, options, "it has no default export", undefined, options.hint);
}

async function importNative(file: string, source: string): Promise<Record<string, unknown>> {
  try {
    return await import(pathToFileURL(file).href);
  } catch (error) {
    // What comes before anything of the file has run, so that nothing runs twice.
    const { code = "", name, message, stack = "" } = error as NodeJS.ErrnoException;
    const unresolved = code.endsWith("MODULE_NOT_FOUND") && message.includes("'openstarry-daemon");
    const unparsed =
      name === "SyntaxError" && (/import statement|export/.test(message) || !stack.includes(file));
    if (unresolved || unparsed) return evaluate(file, source);
    throw error;
  }
}

/** Transpiles and runs it, past every cache. */
async function evaluate(file: string, source: string): Promise<Record<string, unknown>> {
  const { createJiti } = await import("jiti");
  const jiti = createJiti(file, {
    alias: OWN_MODULES,
    // The default cache is a folder of a known name in /tmp, in which anybody could leave code for us.
    fsCache: false,
    moduleCache: false,
    interopDefault: false,
  });
  const made = jiti.evalModule(source, { filename: file, async: true, forceTranspile: true });
  return (await made) as Record<string, unknown>;
}

function failure(
  file: string,
  { code, what }: ImportOptions,
  problem: string,
  cause?: unknown,
  hint?: string,
): OpenStarryError {
  const detail = `${what} ${file}: ${problem}`;
  return new OpenStarryError(code, { detail, cause, hint });
}

/** The error in one line, with the place in the file where one can be told. */
function describe(error: unknown, file: string): string {
  if (!(error instanceof Error)) return `it threw ${String(error)}`;
  const { message, stack = "", name } = error;
  // The transpiler's own: "ParseError: Unexpected token  \n /path/file.ts:4:0".
  const parse = /^ParseError: (.*?)\s*\n\s*\S+:(\d+):(\d+)\s*$/s.exec(message);
  if (parse) return `line ${parse[2]}: ${parse[1]}`;
  const [first = ""] = message.split("\n", 1);
  const at = stack.indexOf(`${file}:`);
  const line = at === -1 ? undefined : /^\d+/.exec(stack.slice(at + file.length + 1))?.[0];
  const text = name === "Error" ? first : `${name}: ${first}`;
  return line === undefined ? text : `line ${line}: ${text}`;
}
