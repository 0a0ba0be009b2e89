import { OpenStarryError } from "../../core/index.js";

const MAX_DEPTH = 64;

/**
 * The JSON object in a request body; an empty body is an empty object. Stricter than `JSON.parse`: what
 * two readers could understand differently, or what could change JavaScript's own objects, is
 * `input_invalid` (duplicate keys, `__proto__`, numbers that a double cannot hold, lone surrogates,
 * invalid UTF-8, more than 64 levels).
 */
export function parseJsonBody(bytes: Uint8Array): Record<string, unknown> {
  if (bytes.length === 0) return {};
  const text = decode(bytes);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    // The parser's own message may quote the body, and with it a secret.
    const position = /at position (\d+)/.exec((cause as Error).message)?.[1];
    throw invalid(`it is not valid JSON${position === undefined ? "" : ` (at character ${position})`}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalid("it is not a JSON object");
  }
  checkKeys(text);
  checkValue(value);
  return value as Record<string, unknown>;
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw invalid("it is not valid UTF-8");
  }
}

/** Walks text that is known to be valid JSON. */
function checkKeys(text: string): void {
  // One entry for each open bracket: the keys seen in an object, nothing for an array.
  const open: (Set<string> | undefined)[] = [];
  let expectsKey = false;
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === "{" || char === "[") {
      open.push(char === "{" ? new Set() : undefined);
      expectsKey = char === "{";
      if (open.length > MAX_DEPTH) throw invalid(`it is nested more than ${MAX_DEPTH} levels deep`);
    } else if (char === "}" || char === "]") {
      open.pop();
    } else if (char === ",") {
      expectsKey = open.at(-1) !== undefined;
    } else if (char === '"') {
      const end = endOfString(text, at);
      if (expectsKey) addKey(open.at(-1), JSON.parse(text.slice(at, end + 1)) as string);
      expectsKey = false;
      at = end;
    }
  }
}

function endOfString(text: string, start: number): number {
  let at = start + 1;
  while (text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
  return at;
}

function addKey(keys: Set<string> | undefined, key: string): void {
  if (key === "__proto__") throw invalid('it holds the key "__proto__"');
  if (keys?.has(key)) throw invalid(`the key ${JSON.stringify(key.slice(0, 100))} stands there twice`);
  keys?.add(key);
}

function checkValue(value: unknown): void {
  if (typeof value === "number") {
    const exact = Number.isInteger(value) ? Number.isSafeInteger(value) : Number.isFinite(value);
    if (!exact) throw invalid("it holds a number that cannot be kept exactly; send it as a string");
  } else if (typeof value === "string") {
    if (/\p{Surrogate}/u.test(value)) throw invalid("it holds half of a surrogate pair");
  } else if (typeof value === "object" && value !== null) {
    for (const [key, inner] of Object.entries(value)) {
      if (key === "constructor" && typeof inner === "object" && inner !== null && "prototype" in inner) {
        throw invalid('it holds the keys "constructor" and "prototype"');
      }
      checkValue(key);
      checkValue(inner);
    }
  }
}

function invalid(problem: string): OpenStarryError {
  return new OpenStarryError("input_invalid", {
    detail: `the request body cannot be used: ${problem}`,
    hint: "send one JSON object in UTF-8",
  });
}
