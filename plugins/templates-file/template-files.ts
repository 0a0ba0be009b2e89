import { createHash } from "node:crypto";
import { type Dirent, statSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { dirname, extname, join } from "node:path";
import {
  type InvalidTemplate,
  importModule,
  OpenStarryError,
  parseData,
  parseTemplate,
  readTextFile,
  type TemplateDocument,
  toOpenStarryError,
} from "../../core/index.js";

const DATA_EXTENSIONS = [".json", ".yaml", ".yml"];
const CODE_EXTENSIONS = [".ts", ".mts", ".js", ".mjs"];
const MAX_BYTES = 256 * 1024;

/** One template file, and what was in it when it was read. */
export interface TemplateFile {
  readonly path: string;
  /** Changes when the content may have. */
  readonly stamp: string;
  readonly document?: TemplateDocument;
  readonly invalid?: InvalidTemplate;
}

/** What tells a changed file from an unchanged one; `undefined` when it is gone. */
export function stampOf(path: string): string | undefined {
  const stat = statSync(path, { throwIfNoEntry: false, bigint: true });
  return stat && `${stat.ino}:${stat.mtimeNs}:${stat.size}`;
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
  return CODE_EXTENSIONS.includes(extname(path)) && !path.endsWith(".d.ts");
}

/** Reads one file. What is wrong with it becomes `invalid`: it must not hide the good ones. */
export async function readTemplateFile(path: string): Promise<TemplateFile> {
  const stamp = stampOf(path) ?? "";
  let templateId: string | undefined;
  try {
    const { value, text } = await readDocument(path);
    templateId = idOf(value);
    if (templateId === undefined) {
      throw new OpenStarryError("template_invalid", { detail: `template ${path}: template_id is missing` });
    }
    const document: TemplateDocument = {
      template_id: templateId,
      revision: createHash("sha256").update(text).digest("hex").slice(0, 12),
      document: value,
      origin: path,
      baseDir: dirname(path),
    };
    parseTemplate(document);
    return { path, stamp, document };
  } catch (error) {
    const message = toOpenStarryError(error).message;
    return {
      path,
      stamp,
      invalid: {
        origin: path,
        error: message,
        ...(templateId === undefined ? {} : { template_id: templateId }),
      },
    };
  }
}

async function readDocument(path: string): Promise<{ value: unknown; text: string }> {
  const what = `template ${path}`;
  if (isCode(path)) {
    const exports = await importModule(path, { code: "template_invalid", what: "template", fresh: true });
    // What the code made is what counts: it may read other files.
    return { value: exports["default"], text: JSON.stringify(exports["default"]) ?? "" };
  }
  const text = await readTextFile(path, { maxBytes: MAX_BYTES, code: "template_invalid", what: "template" });
  if (text === undefined) throw new OpenStarryError("template_invalid", { detail: `${what}: it is gone` });
  const format = extname(path) === ".json" ? "json" : "yaml";
  const { value } = await parseData(text, { format, code: "template_invalid", what });
  return { value, text };
}

function idOf(value: unknown): string | undefined {
  const id = (value as { template_id?: unknown } | undefined)?.template_id;
  return typeof id === "string" ? id : undefined;
}
