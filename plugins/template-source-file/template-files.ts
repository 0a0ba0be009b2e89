import { createHash } from "node:crypto";
import { type BigIntStats, type Dirent, statSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import {
  type InvalidTemplate,
  importDefault,
  isOpenStarryError,
  OpenStarryError,
  parseData,
  readTextFile,
  type TemplateDocument,
  type TemplateLookup,
} from "../../core/index.js";

const DATA_EXTENSIONS = [".json", ".yaml", ".yml"];
const CODE_EXTENSIONS = [".ts", ".mts", ".js", ".mjs"];
/** Of one file. */
export const MAX_TEMPLATE_BYTES = 256 * 1024;

/** One template file, and what was in it when it was read. */
export interface TemplateFile {
  readonly path: string;
  /** Changes when the content may have. */
  readonly stamp: string;
  readonly document?: TemplateDocument;
  readonly invalid?: InvalidTemplate;
}

/** The kernel's clock of files goes in steps of a few milliseconds. */
const SETTLED_MS = 50;

/** What tells a changed file or folder from an unchanged one; `undefined` when it is gone. */
export function stampOf(path: string): string | undefined {
  const stat = statOf(path);
  return stat && `${stat.dev}:${stat.ino}:${stat.mtimeNs}:${stat.ctimeNs}:${stat.size}`;
}

/**
 * The stamp to keep, taken before reading. A change right after it may leave the times as they are:
 * what is that young gets a stamp that fits nothing, and so is read once more.
 */
export function stampBeforeReading(path: string): string {
  const stat = statOf(path);
  const isSettled = stat !== undefined && Date.now() - Number(stat.ctimeMs) > SETTLED_MS;
  return isSettled ? (stampOf(path) ?? "") : "";
}

function statOf(path: string): BigIntStats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false, bigint: true });
  } catch {
    // A folder on the way there may not be entered: the reading says so.
    return undefined;
  }
}

/** The template files of a folder by name; none when there is no folder. */
export async function templatePaths(folder: string): Promise<string[]> {
  let entries: Dirent[];
  try {
    entries = await readdir(folder, { withFileTypes: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
  return entries
    .filter((entry) => !entry.isDirectory() && !entry.name.startsWith("."))
    .map((entry) => entry.name)
    .filter((name) => isCode(name) || DATA_EXTENSIONS.includes(extname(name)))
    .sort()
    .map((name) => join(folder, name));
}

export function isCode(path: string): boolean {
  return CODE_EXTENSIONS.includes(extname(path)) && !/\.d\.m?ts$/.test(path);
}

/** The id that a file most likely has, for one whose content cannot tell. */
export function idByName(path: string): string {
  return basename(path, extname(path));
}

/** Reads one file. What is wrong with it becomes `invalid`: it must not hide the good ones. */
export async function readTemplateFile(
  path: string,
  templates: Pick<TemplateLookup, "parse">,
): Promise<TemplateFile> {
  const stamp = isCode(path) ? (stampOf(path) ?? "") : stampBeforeReading(path);
  let templateId: string | undefined;
  try {
    const { value, text } = isCode(path) ? await readCode(path) : await readData(path);
    templateId = idOf(value);
    if (templateId === undefined) throw broken(path, "template_id is missing");
    const document: TemplateDocument = {
      template_id: templateId,
      revision: revisionOf(text),
      document: value,
      origin: path,
      baseDir: dirname(path),
    };
    templates.parse(document);
    return { path, stamp, document };
  } catch (error) {
    return { path, stamp, invalid: invalidOf(path, templateId, error) };
  }
}

/** Code that was not there at the start, or when everything was read again. */
export function unreadCode(path: string): TemplateFile {
  const error = broken(path, "code is read at the start and on reload, and this file came later");
  return { path, stamp: stampOf(path) ?? "", invalid: invalidOf(path, undefined, error) };
}

/** The first 12 hexadecimal digits of the SHA-256 of the content. */
function revisionOf(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 12);
}

function invalidOf(path: string, templateId: string | undefined, error: unknown): InvalidTemplate {
  const told = isOpenStarryError(error) ? error : broken(path, `it cannot be read (${String(error)})`);
  const hint = told.hint === undefined ? "" : ` (${told.hint})`;
  return {
    origin: path,
    error: `${told.message}${hint}`,
    ...(templateId === undefined ? {} : { template_id: templateId }),
  };
}

function broken(path: string, problem: string): OpenStarryError {
  return new OpenStarryError("template_invalid", { detail: `template ${path}: ${problem}` });
}

async function readData(path: string): Promise<{ value: unknown; text: string }> {
  const text = await readTextFile(path, {
    maxBytes: MAX_TEMPLATE_BYTES,
    code: "template_invalid",
    what: "template",
  });
  if (text === undefined) throw broken(path, "it is gone");
  const format = extname(path) === ".json" ? "json" : "yaml";
  const { value } = await parseData(text, { format, code: "template_invalid", what: `template ${path}` });
  return { value, text };
}

async function readCode(path: string): Promise<{ value: unknown; text: string }> {
  const value = await importDefault(path, {
    code: "template_invalid",
    what: "template",
    fresh: true,
    hint: "a template in code says: export default { template_id: … }",
  });
  // What the code made is what counts: it may have read other files. And it is to be plain data.
  const text = JSON.stringify(value) as string | undefined;
  if (text === undefined) throw broken(path, `its default export is a ${typeof value}, not an object`);
  return { value: JSON.parse(text), text };
}

function idOf(value: unknown): string | undefined {
  const id = (value as { template_id?: unknown } | undefined)?.template_id;
  return typeof id === "string" ? id : undefined;
}
