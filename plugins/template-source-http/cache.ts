import { lstat, mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { idSchema, type Logger, OpenStarryError, readTextFile, validateSync } from "../../core/index.js";
import { removeFile, writeWhole } from "../kit/atomic-file.js";

/** A good document as the service sent it. */
export interface Kept {
  template_id: string;
  text: string;
  etag?: string | undefined;
  /** RFC 3339: when the service sent it. */
  got_at: string;
}

const fileSchema = z.object({
  /** The address: what another service said of the same id is not to be taken for this one's. */
  service: z.string(),
  template_id: idSchema,
  text: z.string(),
  etag: z.string().optional(),
  got_at: z.iso.datetime(),
});

/** Of a file: the largest document, escaped, and what stands around it. */
const MAX_FILE_BYTES = 1024 * 1024;

export type Cache = ReturnType<typeof createCache>;

/** What a service has said, one file a template, for the daemon's user alone. Not valid files are passed over. */
export function createCache({ folder, service, log }: { folder: string; service: string; log: Logger }) {
  const pathOf = (templateId: string) => join(folder, `${templateId}.json`);

  async function read(name: string): Promise<Kept | undefined> {
    const [code, what] = ["template_invalid", `cached template ${join(folder, name)}`] as const;
    const text = await readTextFile(join(folder, name), {
      maxBytes: MAX_FILE_BYTES,
      code,
      what: "cached template",
    });
    if (text === undefined) return undefined;
    const { service: of, ...kept } = validateSync(fileSchema, parsed(text, what), { code, what });
    return of === service && name === `${kept.template_id}.json` ? kept : undefined;
  }

  return {
    /** Makes the folder where it is not there. Rejects with `home_unusable` when something else is in its place. */
    async load(): Promise<Kept[]> {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      if (!(await lstat(folder)).isDirectory()) {
        throw new OpenStarryError("home_unusable", {
          detail: `${folder} is a link, and the daemon writes through none`,
          hint: "remove it",
        });
      }
      const names = (await readdir(folder)).filter((name) => name.endsWith(".json") && !name.startsWith("."));
      const found: Kept[] = [];
      for (const name of names.sort()) {
        const kept = await read(name).catch((err: unknown) => {
          log.warn({ err }, "a cached template cannot be used; the service's is, when it answers");
          return undefined;
        });
        if (kept) found.push(kept);
      }
      return found;
    },
    /** A disk that takes nothing does not keep a template from being used. */
    async keep(kept: Kept): Promise<void> {
      const text = JSON.stringify({ service, ...kept } satisfies z.input<typeof fileSchema>);
      await writeWhole(pathOf(kept.template_id), `${text}\n`).catch((err: unknown) =>
        log.warn({ template_id: kept.template_id, err }, "a template could not be cached"),
      );
    },
    async forget(templateId: string): Promise<void> {
      await removeFile(pathOf(templateId)).catch((err: unknown) =>
        log.warn({ template_id: templateId, err }, "a cached template could not be removed"),
      );
    },
  };
}

function parsed(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new OpenStarryError("template_invalid", { detail: `${what}: it is not JSON`, cause });
  }
}
