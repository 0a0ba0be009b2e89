import { lstat } from "node:fs/promises";
import { join } from "node:path";
import {
  ID_PATTERN,
  type InvalidTemplate,
  type Logger,
  OpenStarryError,
  parseData,
  type TemplateDocument,
  type TemplateLookup,
  type TemplateSource,
} from "../../core/index.js";
import { removeFile, writeWhole } from "../kit/atomic-file.js";
import { ensureFolder } from "./ensure-folder.js";
import {
  idByName,
  isCode,
  MAX_TEMPLATE_BYTES,
  readTemplateFile,
  stampBeforeReading,
  stampOf,
  type TemplateFile,
  templatePaths,
  unreadCode,
} from "./template-files.js";

export interface FileSourceOptions {
  /** Absolute, the first one first. The first is the one that is written to. */
  folders: readonly [string, ...string[]];
  log: Logger;
  templates: Pick<TemplateLookup, "parse">;
  /** Called after every reading of the folders. */
  onScan?(): void;
}

export interface FileSource extends Required<TemplateSource> {
  /** Reads what is new or changed. */
  scan(): Promise<void>;
}

/**
 * Templates in the files of folders. Whether a folder or file has changed is asked of the file system
 * whenever a template is used, so that an edit counts at once and no notification can be missed.
 * Templates that are code are only read by the first scan and by `reload`.
 */
export function createFileSource({ folders, log, templates, onScan }: FileSourceOptions): FileSource {
  const [home] = folders;
  let files: ReadonlyMap<string, TemplateFile> = new Map();
  /** Folders that cannot be read, and why. */
  let unreadable: InvalidTemplate[] = [];
  let folderStamps: readonly string[] = [];
  let rereadCode = true;
  let queue: Promise<unknown> = Promise.resolve();
  let waiting: Promise<void> | undefined;

  /** One thing at a time: a writing and a reading must not meet. */
  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = queue.then(work);
    queue = done.catch(() => {});
    return done;
  }

  /** Whoever asks while one runs gets the next: the running one may be past what it is about. */
  function scan(): Promise<void> {
    waiting ??= inTurn(async () => {
      waiting = undefined;
      await readAll();
    });
    return waiting;
  }

  async function readAll(): Promise<void> {
    const stamps = folders.map(stampBeforeReading);
    const withCode = rereadCode;
    rereadCode = false;
    const problems: InvalidTemplate[] = [];
    const found = new Map<string, TemplateFile>();
    for (const folder of folders) {
      const paths = await templatePaths(folder).catch((error: NodeJS.ErrnoException) => {
        problems.push({ origin: folder, error: `the folder ${folder} cannot be read (${error.code})` });
        return [];
      });
      for (const path of paths) found.set(path, await readOne(path, withCode));
    }
    tellChanges(files, found, log);
    [files, unreadable, folderStamps] = [found, problems, stamps];
    onScan?.();
  }

  async function readOne(path: string, withCode: boolean): Promise<TemplateFile> {
    const known = files.get(path);
    if (isCode(path)) {
      if (withCode) return withIdOf(known, await readTemplateFile(path, templates));
      return known ? { ...known, stamp: stampOf(path) ?? "" } : unreadCode(path);
    }
    if (known !== undefined && known.stamp === stampOf(path)) return known;
    return withIdOf(known, await readTemplateFile(path, templates));
  }

  /** The first file that has this id. */
  function fileOf(templateId: string): TemplateFile | undefined {
    return [...files.values()].find((file) => file.document?.template_id === templateId);
  }

  /** The first file that would have it, were it valid. */
  function brokenOf(templateId: string): InvalidTemplate | undefined {
    const invalid = [...files.values()].flatMap((file) => file.invalid ?? []);
    return invalid.find((it) => (it.template_id ?? idByName(it.origin)) === templateId);
  }

  function isFresh(file: TemplateFile): boolean {
    const isCurrent = (path: string, stamp: string | undefined) => stamp === stampOf(path);
    // A folder that is not there has no stamp, and one that appears has.
    return (
      folders.every((folder, index) => isCurrent(folder, folderStamps[index] || undefined)) &&
      (isCode(file.path) || isCurrent(file.path, file.stamp))
    );
  }

  async function get(templateId: string): Promise<TemplateDocument | undefined> {
    const known = fileOf(templateId);
    if (known && isFresh(known)) return known.document;
    await scan();
    const found = fileOf(templateId);
    if (found) return found.document;
    const broken = brokenOf(templateId);
    if (broken) throw new OpenStarryError("template_invalid", { detail: broken.error });
    return undefined;
  }

  async function list(): Promise<{ documents: TemplateDocument[]; invalid: InvalidTemplate[] }> {
    await scan();
    const documents: TemplateDocument[] = [];
    const invalid: InvalidTemplate[] = [...unreadable];
    for (const file of files.values()) {
      if (file.invalid) invalid.push(file.invalid);
      if (!file.document) continue;
      const first = fileOf(file.document.template_id) ?? file;
      if (first === file) documents.push(file.document);
      else invalid.push(double(file.document, first.path));
    }
    return { documents, invalid };
  }

  /** Where an id is written. Rejects with `template_read_only` when something else is in the way. */
  async function ownPath(templateId: string): Promise<string> {
    // An id becomes a file name; whoever called should have seen to it already.
    if (!ID_PATTERN.test(templateId)) {
      throw new OpenStarryError("input_invalid", { detail: "template_id: it is not a valid id" });
    }
    await readAll();
    const path = join(home, `${templateId}.json`);
    const holder = fileOf(templateId)?.path ?? brokenOf(templateId)?.origin;
    if (holder !== undefined && holder !== path) {
      throw readOnly(`template ${templateId} is the file ${holder}`, "change that file");
    }
    const other = files.get(path)?.document?.template_id;
    if (other !== undefined && other !== templateId) {
      throw readOnly(`the file ${path} holds the template ${other}`, "rename that file");
    }
    const stat = await lstat(path).catch(() => undefined);
    if (stat && !stat.isFile()) throw readOnly(`${path} is no regular file`, "remove it");
    return path;
  }

  async function put(templateId: string, document: unknown): Promise<TemplateDocument> {
    await ensureFolder(home);
    const path = await ownPath(templateId);
    const text = `${JSON.stringify(document, undefined, 2)}\n`;
    await checkText(templateId, text, templates);
    await writeWhole(path, text);
    await readAll();
    const written = files.get(path);
    if (written?.document) return written.document;
    throw new OpenStarryError("internal", {
      detail: `template ${templateId} was written and cannot be read`,
    });
  }

  async function remove(templateId: string): Promise<boolean> {
    const path = await ownPath(templateId);
    if (!(await lstat(path).catch(() => undefined))) return false;
    await removeFile(path);
    await readAll();
    return true;
  }

  return {
    name: "file",
    get,
    list,
    scan,
    reload() {
      rereadCode = true;
      return scan();
    },
    put: (templateId, document) => inTurn(() => put(templateId, document)),
    delete: (templateId) => inTurn(() => remove(templateId)),
  };
}

/** What is written is what was checked, read as it will be read again. */
async function checkText(
  templateId: string,
  text: string,
  templates: Pick<TemplateLookup, "parse">,
): Promise<void> {
  const what = `template ${templateId} (the request)`;
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_TEMPLATE_BYTES) {
    throw new OpenStarryError("template_invalid", {
      detail: `${what}: it has ${bytes} bytes, and a template may have ${MAX_TEMPLATE_BYTES}`,
      hint: "move what is large into a file that the agent reads",
    });
  }
  const { value } = await parseData(text, { format: "json", code: "template_invalid", what });
  // Without a folder of its own, so that relative paths are refused: nobody could say from where.
  templates.parse({ template_id: templateId, revision: "", document: value, origin: "the request" });
}

/** A file that cannot be read any more still has the id that it had. */
function withIdOf(known: TemplateFile | undefined, file: TemplateFile): TemplateFile {
  const id = known?.document?.template_id ?? known?.invalid?.template_id;
  if (!file.invalid || file.invalid.template_id !== undefined || id === undefined) return file;
  return { ...file, invalid: { ...file.invalid, template_id: id } };
}

function double({ origin, template_id }: TemplateDocument, first: string): InvalidTemplate {
  const error = `template ${origin}: ${template_id} is the file ${first} already, which comes first`;
  return { origin, template_id, error };
}

function readOnly(detail: string, hint: string): OpenStarryError {
  return new OpenStarryError("template_read_only", {
    detail,
    hint: `${hint}, or choose another template_id`,
  });
}

/** In the log: there is no event for a template. */
function tellChanges(
  before: ReadonlyMap<string, TemplateFile>,
  after: ReadonlyMap<string, TemplateFile>,
  log: Logger,
): void {
  for (const file of after.values()) {
    const known = before.get(file.path);
    if (known === file) continue;
    if (file.invalid) {
      if (known?.invalid?.error === file.invalid.error) continue;
      log.warn({ file: file.path, problem: file.invalid.error }, "a template file is not valid");
    } else if (known?.document?.revision !== file.document?.revision) {
      const { template_id, revision } = file.document ?? {};
      const what = known ? "a template has changed" : "a template was found";
      log.info({ file: file.path, template_id, revision }, what);
    } else if (isCode(file.path) && known && known.stamp !== file.stamp) {
      log.info({ file: file.path }, "a template in code has changed; a reload takes it over");
    }
  }
  for (const path of before.keys()) if (!after.has(path)) log.info({ file: path }, "a template file is gone");
}
