/**
 * The last token of every subject of a topic, so that `agents/a/#` is one filter, `agents.a.>`: NATS's `>`
 * stands for one token or more, and `#` for none too.
 */
const END = "_";

/** A topic, or a filter, as NATS has it: `a/b` is `a.b._`, `a/+` is `a.*._`, `a/#` is `a.>`. */
export function subjectOf(topic: string): string {
  const levels = topic.split("/");
  const tokens = levels.map((level) => (level === "+" ? "*" : level === "#" ? ">" : encode(level)));
  return levels.at(-1) === "#" ? tokens.join(".") : [...tokens, END].join(".");
}

/** The other way, for a topic. */
export function topicOf(subject: string): string {
  return subject.split(".").slice(0, -1).map(decode).join("/");
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

export function decode(token: string): string {
  return token.includes("%") ? decodeURIComponent(token) : token;
}
