/** The last token of a subject, unless it holds the metadata of a large message. */
const NO_METADATA = "_";

/**
 * Returns the subject of a topic: a token for each level, and one more. With that one, `agents/a/#` is a single NATS
 * filter, `agents.a.>`: NATS's `>` needs at least one token, while `#` matches zero levels too.
 */
export function subjectOf(topic: string, metadata = NO_METADATA): string {
  return [...topic.split("/").map(encodeToken), metadata].join(".");
}

/** Returns the NATS filter of a topic filter: `a/b` is `a.b.*`, `a/+` is `a.*.*`, `a/#` is `a.>`. */
export function filterSubjectOf(filter: string): string {
  const levels = filter.split("/");
  const tokens = levels.map((level) => (level === "+" ? "*" : level === "#" ? ">" : encodeToken(level)));
  return (levels.at(-1) === "#" ? tokens : [...tokens, "*"]).join(".");
}

/** Splits a subject into its topic and the metadata that it holds. */
export function parseSubject(subject: string): { topic: string; metadata: string | undefined } {
  const tokens = subject.split(".");
  const last = tokens.pop();
  return { topic: tokens.map(decodeToken).join("/"), metadata: last === NO_METADATA ? undefined : last };
}

/**
 * Encodes any text as one token of a subject, which is also a valid header value: whatever is not a letter, a digit,
 * `-` or `_` becomes `%` and two hexadecimal digits for each byte of UTF-8.
 */
export function encodeToken(text: string): string {
  if (/^[\w-]+$/.test(text)) return text;
  let token = "";
  for (const byte of Buffer.from(text)) {
    const char = String.fromCharCode(byte);
    token += /[\w-]/.test(char) ? char : `%${byte.toString(16).padStart(2, "0")}`;
  }
  return token;
}

/** Reverses `encodeToken`. Returns a token that it did not produce unchanged. */
export function decodeToken(token: string): string {
  if (!token.includes("%")) return token;
  try {
    return decodeURIComponent(token);
  } catch {
    return token;
  }
}
