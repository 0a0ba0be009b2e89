/** How a value is made to fit. */
export interface ShortenOptions {
  maxBytes: number;
  /** Which end of a list matters more. */
  keep: "first" | "last";
  /** How the caller gets the rest, in a sentence. */
  howToGetMore: string;
}

interface Limits {
  /** Of a list, and of an object that is used as one. */
  items: number;
  /** Of a string. */
  chars: number;
}

/** Lists are cut long before the texts in them: a few whole sentences tell more than many halves. */
const CHARS_PER_ITEM = 40;
const SHORTEST_TEXT = 40;

/**
 * Makes `data` small enough that `{"ok":true,"data":…}` around it is at most `maxBytes` long as JSON:
 * long lists lose their less important end, long strings their middle, ever more until it fits. What was
 * left out is told in `data.shortened`.
 */
export function shorten(data: Record<string, unknown>, options: ShortenOptions): Record<string, unknown> {
  const budget = options.maxBytes - Buffer.byteLength('{"ok":true,"data":}');
  if (bytesOf(data) <= budget) return data;
  for (let chars = budget; chars > SHORTEST_TEXT; chars = Math.floor(chars * 0.9)) {
    const limits = { chars, items: Math.max(1, Math.floor(chars / CHARS_PER_ITEM)) };
    const { value, left } = cut(data, limits, options.keep);
    const shortened = `${left.join("; ")}. ${options.howToGetMore}`;
    const fitting = { ...(value as Record<string, unknown>), shortened };
    if (left.length > 0 && bytesOf(fitting) <= budget) return fitting;
  }
  // Deep and wide at once: its text is the best that can be shown.
  const text = JSON.stringify(data);
  const room = Math.max(0, Math.floor((budget - 400 - options.howToGetMore.length) / 3));
  return {
    beginning_of_json: text.slice(0, room),
    shortened: `${text.length - room} of ${text.length} characters are left out. ${options.howToGetMore}`,
  };
}

/** Cuts the middle out of a text, so that at most `chars` characters are left, with a mark in between. */
export function cutMiddle(text: string, chars: number): string {
  if (text.length <= chars) return text;
  const mark = ` …[${text.length - chars} characters left out]… `;
  const head = Math.ceil(chars * 0.6);
  return `${whole(text.slice(0, head))}${mark}${whole(text.slice(text.length - (chars - head)))}`;
}

function cut(
  data: unknown,
  limits: Limits,
  keep: ShortenOptions["keep"],
): { value: unknown; left: string[] } {
  const left: string[] = [];
  const note = (text: string) => {
    if (left.length < 3) left.push(text);
    else left[3] = "and more of this kind";
  };
  const walk = (value: unknown, path: string): unknown => {
    if (typeof value === "string") {
      if (value.length <= limits.chars) return value;
      note(`${path}: ${limits.chars} of ${value.length} characters are shown`);
      return cutMiddle(value, limits.chars);
    }
    if (Array.isArray(value)) {
      const kept = keep === "first" ? value.slice(0, limits.items) : value.slice(-limits.items);
      if (kept.length < value.length)
        note(`${path}: the ${keep} ${kept.length} of ${value.length} are shown`);
      return kept.map((item, index) => walk(item, `${path}[${index}]`));
    }
    if (typeof value !== "object" || value === null) return value;
    const entries = Object.entries(value);
    // A record has some 20 fields at most; more means that the object is a list by name.
    const kept = path === "" ? entries : entries.slice(0, Math.max(limits.items, 8));
    if (kept.length < entries.length) note(`${path}: ${kept.length} of ${entries.length} keys are shown`);
    return Object.fromEntries(kept.map(([key, item]) => [key, walk(item, path ? `${path}.${key}` : key)]));
  };
  return { value: walk(data, ""), left };
}

function bytesOf(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value));
}

/** A half of a character beyond the basic plane cannot be written as UTF-8. */
function whole(text: string): string {
  return text.replace(/^[\uDC00-\uDFFF]|[\uD800-\uDBFF]$/g, "");
}
