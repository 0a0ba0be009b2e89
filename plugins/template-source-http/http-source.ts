import {
  type Clock,
  ID_PATTERN,
  isOpenStarryError,
  type Logger,
  rfc3339,
  type TemplateDocument,
  type TemplateLookup,
  type TemplateSource,
} from "../../core/index.js";
import type { Cache, Kept } from "./cache.js";
import { readDocument } from "./document.js";
import { createFaults } from "./faults.js";
import { MAX_TEMPLATES, readList } from "./list.js";
import { ServiceSilent, type TemplateService } from "./service.js";

export interface HttpSourceOptions {
  service: TemplateService;
  cache: Cache;
  templates: Pick<TemplateLookup, "parse">;
  clock: Pick<Clock, "now" | "monotonic">;
  log: Logger;
  maxAgeMs: number;
  /** What is wrong with the service, in words; `undefined` when it is well again. */
  tell: (problem: string | undefined) => void;
}

/** Of one document, as of a template file. */
const MAX_TEMPLATE_BYTES = 256 * 1024;
/** So many documents are asked for at once. */
const AT_ONCE = 4;
/** The list among the faults: no template has this id. */
const LIST = "";

/**
 * Templates of a service, each kept as it was when it was last good. What the service said, or that it did
 * not answer, counts for `maxAgeMs`; then it is asked again.
 */
export function createHttpSource(options: HttpSourceOptions) {
  const { service, cache, templates, clock, log, maxAgeMs, tell } = options;
  const kept = new Map<string, Kept & { document: TemplateDocument }>();
  /** When the service was last asked for it, of `monotonic`. */
  const askedAtMs = new Map<string, number>();
  const asking = new Map<string, Promise<TemplateDocument | undefined>>();
  let listed: ReadonlySet<string> = new Set();
  /** Its last silence, until it answers again. */
  let silence: { atMs: number; why: string } | undefined;
  let refreshing: Promise<void> | undefined;
  const inCache = () => new Set(kept.keys());
  const faults = createFaults({ clock, inCache, tell });

  const originOf = (templateId: string) => `${service.url}/templates/${templateId}`;
  const read = (templateId: string, text: string) =>
    readDocument(templateId, text, { origin: originOf(templateId), templates });
  const isYoung = (atMs: number | undefined) => atMs !== undefined && clock.monotonic() - atMs < maxAgeMs;
  const isKnown = (templateId: string) => kept.has(templateId) || listed.has(templateId);

  function shown({ document, got_at, template_id }: Kept & { document: TemplateDocument }): TemplateDocument {
    if (!faults.get(template_id)) return document;
    return { ...document, origin: `${document.origin} (from the cache, as it was sent at ${got_at})` };
  }

  /** Notes what failed about a template or the list. */
  function note(key: string, error: unknown): void {
    const why = error instanceof Error ? error.message : String(error);
    const isDocument = isOpenStarryError(error) && error.code === "template_invalid";
    silence = error instanceof ServiceSilent ? { atMs: clock.monotonic(), why } : undefined;
    if (key === LIST || isKnown(key)) faults.note([key], { why, isDocument });
  }

  async function accept(
    templateId: string,
    text: string,
    etag: string | undefined,
  ): Promise<TemplateDocument> {
    const document = await read(templateId, text);
    const before = kept.get(templateId);
    const fresh = { template_id: templateId, text, etag, got_at: rfc3339(clock.now()) };
    if (!before && kept.size >= MAX_TEMPLATES) return document;
    kept.set(templateId, { ...fresh, document });
    if (before?.text !== text || before.etag !== etag) await cache.keep(fresh);
    if (before && before.text !== text) log.info({ template_id: templateId }, "a template has changed");
    return document;
  }

  async function forget(templateId: string): Promise<undefined> {
    if (!kept.delete(templateId)) return;
    await cache.forget(templateId);
    log.info({ template_id: templateId }, "a template is gone: the service has it no more");
  }

  async function ask(templateId: string): Promise<TemplateDocument | undefined> {
    const before = kept.get(templateId);
    try {
      const path = `/templates/${templateId}`;
      const answer = await service.ask({ path, maxBytes: MAX_TEMPLATE_BYTES, etag: before?.etag });
      // It is back: what else it has to say is asked at once.
      if (silence) void refresh();
      silence = undefined;
      if (answer.kind === "absent") await forget(templateId);
      const document =
        answer.kind === "found"
          ? await accept(templateId, answer.text, answer.etag)
          : kept.get(templateId)?.document;
      faults.clear(templateId);
      return document;
    } catch (error) {
      note(templateId, error);
      if (before) return shown(before);
      throw error;
    } finally {
      if (kept.has(templateId)) askedAtMs.set(templateId, clock.monotonic());
      else askedAtMs.delete(templateId);
    }
  }

  /** Whoever asks for the same meanwhile gets the same answer. */
  function askOnce(templateId: string): Promise<TemplateDocument | undefined> {
    const under = asking.get(templateId);
    if (under !== undefined) return under;
    const asked = ask(templateId).finally(() => asking.delete(templateId));
    asking.set(templateId, asked);
    return asked;
  }

  async function askAll(): Promise<void> {
    try {
      listed = new Set((await readList(service)) ?? []);
      silence = undefined;
      faults.clear(LIST);
    } catch (error) {
      note(LIST, error);
    } finally {
      askedAtMs.set(LIST, clock.monotonic());
    }
    const ids = [...new Set([...kept.keys(), ...listed])];
    for (const [key] of faults.entries()) if (key !== LIST && !ids.includes(key)) faults.clear(key);
    // Once it is silent there is no use in waiting for its silence about each.
    const left = ids.values();
    const work = async () => {
      for (const id of left) if (!silence) await askOnce(id).catch(() => {});
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    if (silence) faults.note([...kept.keys()], { why: silence.why, isDocument: false });
  }

  function refresh(): Promise<void> {
    refreshing ??= faults.during(askAll).finally(() => {
      refreshing = undefined;
    });
    return refreshing;
  }

  const source: TemplateSource = {
    name: "http",
    async get(templateId) {
      if (!ID_PATTERN.test(templateId)) return undefined;
      const known = kept.get(templateId);
      if (!known) return askOnce(templateId);
      if (silence && isYoung(silence.atMs)) {
        faults.note([templateId], { why: silence.why, isDocument: false });
        return shown(known);
      }
      return isYoung(askedAtMs.get(templateId)) ? shown(known) : askOnce(templateId);
    },
    async list() {
      if (!isYoung(askedAtMs.get(LIST))) await refresh();
      const wrong = faults.entries().filter(([key, { isDocument }]) => isDocument || key === LIST);
      return {
        documents: [...kept.values()].map(shown),
        invalid: wrong.map(([key, { why }]) =>
          key === LIST
            ? { origin: `${service.url}/templates`, error: why }
            : { origin: originOf(key), template_id: key, error: why },
        ),
      };
    },
    async reload() {
      // One that is under way may be past what has changed.
      await refreshing;
      await refresh();
    },
  };
  return {
    source,
    refresh,
    /** Takes up what the cache holds. What is not valid any more is passed over, and stays where it is. */
    async load(): Promise<void> {
      for (const it of await cache.load()) {
        try {
          kept.set(it.template_id, { ...it, document: await read(it.template_id, it.text) });
        } catch (err) {
          log.warn({ template_id: it.template_id, err }, "a cached template is not valid for this daemon");
        }
      }
    },
  };
}
