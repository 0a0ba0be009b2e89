import { type Clock, formatDuration, isOpenStarryError, OpenStarryError } from "../../core/index.js";
import { get, type Reply } from "./exchange.js";
import { readToken } from "./token-file.js";

export interface ServiceOptions {
  /** Without a slash at its end. */
  url: string;
  tokenFile?: string | undefined;
  timeoutMs: number;
  clock: Pick<Clock, "after">;
}

export interface Question {
  /** Behind the service's address: `/templates`. */
  path: string;
  maxBytes: number;
  /** Of what was got last time: the service need not send the same again. */
  etag?: string | undefined;
}

export type ServiceAnswer =
  | { kind: "found"; text: string; etag?: string }
  | { kind: "unchanged" }
  | { kind: "absent" };

export type TemplateService = ReturnType<typeof createService>;

/** There was no answer, whatever the question was. */
export class ServiceSilent extends OpenStarryError {}

const MAX_ETAG = 256;

/**
 * The service. A question is rejected with `template_invalid` when what was sent can be no document, with
 * `plugin_failed` when the answer was another status, and as `ServiceSilent` when there was none.
 */
export function createService({ url, tokenFile, timeoutMs, clock }: ServiceOptions) {
  const open = new Set<AbortController>();
  const words = (problem: string) => ({ detail: `template service ${url} ${problem}` });
  const silent = (problem: string) => new ServiceSilent("plugin_failed", words(problem));

  async function ask({ path, maxBytes, etag }: Question): Promise<ServiceAnswer> {
    const over = new AbortController();
    const late = () => over.abort(silent(`did not answer within ${formatDuration(timeoutMs)}`));
    const cancel = clock.after(timeoutMs, late);
    open.add(over);
    try {
      const headers = {
        accept: "application/json",
        "user-agent": "openstarry-daemon",
        ...(tokenFile === undefined ? {} : { authorization: `Bearer ${await readToken(tokenFile)}` }),
        ...(etag === undefined ? {} : { "if-none-match": etag }),
      };
      const reply = await get(new URL(url + path), { headers, maxBytes, signal: over.signal });
      if (reply.status === 404 || reply.status === 410) return { kind: "absent" };
      if (reply.status === 304 && etag !== undefined) return { kind: "unchanged" };
      if (reply.status !== 200) throw new OpenStarryError("plugin_failed", words(`answered ${reply.status}`));
      return found(reply, { what: `${url}${path}`, maxBytes });
    } catch (error) {
      if (over.signal.aborted) throw over.signal.reason;
      if (isOpenStarryError(error)) throw error;
      const { code, message } = error as NodeJS.ErrnoException;
      throw silent(code === undefined ? message : `did not answer (${code})`);
    } finally {
      cancel();
      open.delete(over);
    }
  }

  return {
    url,
    ask,
    /** Breaks off what is under way. */
    stop() {
      for (const over of open) over.abort(silent("is not asked any more: the daemon stops"));
    },
  };
}

function found({ headers: { etag }, body }: Reply, of: { what: string; maxBytes: number }): ServiceAnswer {
  const invalid = (problem: string) =>
    new OpenStarryError("template_invalid", { detail: `template ${of.what}: ${problem}` });
  if (!body) throw invalid(`it has more than ${of.maxBytes} bytes`);
  const isUsable = etag !== undefined && etag.length <= MAX_ETAG && /^(W\/)?"[\x21\x23-\x7e]*"$/.test(etag);
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(body);
    return { kind: "found", text, ...(isUsable ? { etag } : {}) };
  } catch {
    throw invalid("it is not UTF-8 text");
  }
}
