import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { lstat, open, rename, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import {
  ID_PATTERN,
  type InvalidTemplate,
  type Logger,
  OpenStarryError,
  parseTemplate,
  type TemplateDocument,
  type TemplateSource,
} from "../../core/index.js";
import { isCode, readTemplateFile, stampOf, type TemplateFile, templatePaths } from "./template-files.js";

/**
 * Templates in the files of these folders; the first folder is the one that is written to. Nothing is
 * watched: whether a folder or a file changed is asked of the file system when a template is used, so
 * that no notification can be missed. Templates that are code are only read at the start and by
 * `reload`.
 */
export function createFileSource(folders: readonly string[], log: Logger): TemplateSource {
  const home = folders[0] ?? "";
  let files = new Map<string, TemplateFile>();
  let folderStamps = "";
  let reading: Promise<void> | undefined;

  const currentStamps = () => folders.map((folder) => stampOf(folder) ?? "none").join();

  /** Reads what is new or changed; at most one reading at a time. */
  function scan(rereadCode = false): Promise<void> {
    reading ??= readAll(rereadCode).finally(() => {
      reading = undefined;
    });
    return reading;
  }

  async function readAll(rereadCode: boolean): Promise<void> {
    const stamps = currentStamps();
    const found = new Map<string, TemplateFile>();
    for (const folder of folders) {
      for (const path of await templatePaths(folder)) {
        const known = files.get(path);
        const keep = known && (isCode(path) ? !rereadCode : known.stamp === stampOf(path));
        found.set(path, keep ? known : await readTemplateFile(path));
        const problem = found.get(path)?.invalid?.error;
        if (!keep && problem !== undefined) log.warn({ file: path, problem }, "a template is not valid");
      }
    }
    files = found;
    folderStamps = stamps;
  }

  /** The first file that has this id. */
  function fileOf(templateId: string): TemplateFile | undefined {
    return [...files.values()].find((file) => file.document?.template_id === templateId);
  }

  async function get(templateId: string): Promise<TemplateDocument | undefined> {
    const file = fileOf(templateId);
    const fresh =
      file && folderStamps === currentStamps() && (isCode(file.path) || file.stamp === stampOf(file.path));
    if (!fresh) await scan();
    const now = fileOf(templateId);
    if (now) return now.document;
    const broken = [...files.values()].find(({ invalid }) => invalid?.template_id === templateId);
    if (broken?.invalid) throw new OpenStarryError("template_invalid", { detail: broken.invalid.error });
    return undefined;
  }

  /** The files that lose against one of the same id before them. */
  function doubles(): InvalidTemplate[] {
    return [...files.values()].flatMap(({ path, document }) => {
      const first = document && fileOf(document.template_id);
      if (!first || first.path === path) return [];
      const error = `template ${path}: ${document.template_id} is defined by ${first.path} already, which is the one that counts`;
      return [{ origin: path, template_id: document.template_id, error }];
    });
  }

  /** Where `put` writes; refuses an id that another file holds. */
  async function ownPath(templateId: string): Promise<string> {
    if (!ID_PATTERN.test(templateId)) {
      throw new OpenStarryError("input_invalid", { detail: "template_id: it is not a valid id" });
    }
    await scan();
    const path = join(home, `${templateId}.json`);
    const holder =
      fileOf(templateId) ?? [...files.values()].find(({ invalid }) => invalid?.template_id === templateId);
    if (holder && holder.path !== path) {
      throw new OpenStarryError("template_read_only", {
        detail: `template ${templateId} is the file ${holder.path}`,
        hint: "change that file, or choose another template_id",
      });
    }
    return path;
  }

  return {
    name: "file",
    get,
    async list() {
      await scan();
      const documents = [...files.values()].flatMap(({ path, document }) =>
        document && fileOf(document.template_id)?.path === path ? [document] : [],
      );
      const invalid = [...files.values()].flatMap((file) => file.invalid ?? []);
      return { documents, invalid: [...invalid, ...doubles()] };
    },
    reload: () => scan(true),
    async put(templateId, document) {
      const path = await ownPath(templateId);
      // Without a folder of its own, so that relative paths are refused: nobody could say from where.
      parseTemplate({ template_id: templateId, revision: "", document, origin: path });
      await writeWhole(path, `${JSON.stringify(document, undefined, 2)}\n`);
      await scan();
      const written = fileOf(templateId)?.document;
      if (!written)
        throw new OpenStarryError("internal", {
          detail: `template ${templateId} was written and is not there`,
        });
      return written;
    },
    async delete(templateId) {
      const path = await ownPath(templateId);
      const stat = await lstat(path).catch(() => undefined);
      if (!stat) return false;
      await unlink(path);
      await scan();
      return true;
    },
  };
}

/** All of it or nothing, under a name that nobody could have placed there before. */
async function writeWhole(path: string, text: string): Promise<void> {
  const temporary = join(dirname(path), `.${randomBytes(8).toString("hex")}.tmp`);
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const file = await open(temporary, flags, 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
    await file.close();
    await rename(temporary, path);
  } catch (cause) {
    await file.close().catch(() => {});
    await unlink(temporary).catch(() => {});
    throw new OpenStarryError("home_unusable", {
      detail: `template file ${path} could not be written (${(cause as NodeJS.ErrnoException).code})`,
      hint: "see that the disk has space and the folder can be written",
      cause,
    });
  }
}
