/** The last token of a subject, unless it is the stamp of a large message. */
const NO_STAMP = "_";

/**
 * A topic as a subject: a token for each level, and one more, so that `agents/a/#` is one filter, `agents.a.>`:
 * NATS's `>` stands for one token or more, and `#` for none too.
 */
export function subjectOf(topic: string, stamp = NO_STAMP): string {
  return [...topic.split("/").map(encode), stamp].join(".");
}

/** What NATS filters by: `a/b` is `a.b.*`, `a/+` is `a.*.*`, `a/#` is `a.>`. */
export function filterSubjectOf(filter: string): string {
  const levels = filter.split("/");
  const tokens = levels.map((level) => (level === "+" ? "*" : level === "#" ? ">" : encode(level)));
  return (levels.at(-1) === "#" ? tokens : [...tokens, "*"]).join(".");
}

/** The topic of a subject, and its stamp. */
export function readSubject(subject: string): { topic: string; stamp: string | undefined } {
  const tokens = subject.split(".");
  const stamp = tokens.pop();
  return { topic: tokens.map(decode).join("/"), stamp: stamp === NO_STAMP ? undefined : stamp };
}

/**
 * Any text as one token of a subject, which is a header's value too: what is more than a letter, a digit, `-`
 * or `_` becomes `%` and two digits for each byte of UTF-8.
 */
export function encode(text: string): string {
  if (/^[\w-]+$/.test(text)) return text;
  let token = "";
  for (const byte of Buffer.from(text)) {
    const char = String.fromCharCode(byte);
    token += /[\w-]/.test(char) ? char : `%${byte.toString(16).padStart(2, "0")}`;
  }
  return token;
}

/** The other way. What was not made by `encode` stays as it is. */
export function decode(token: string): string {
  if (!token.includes("%")) return token;
  try {
    return decodeURIComponent(token);
  } catch {
    return token;
  }
}
