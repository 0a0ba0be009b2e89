/** Characters that steer a terminal, or that change how the text around them is shown. */
const UNSAFE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]|[\ud800-\udfff]/gu;

/**
 * Text of somebody else, safe to print on a terminal as one line: escape sequences, control characters
 * and bidirectional marks are shown (`\x1b`, `\u202e`) instead of obeyed. Tabs stay.
 */
export function neutralise(text: string): string {
  return text.replace(UNSAFE, (character) => {
    const code = character.codePointAt(0) ?? 0;
    if (character === "\n") return "\\n";
    if (character === "\r") return "\\r";
    if (code <= 0xff) return `\\x${code.toString(16).padStart(2, "0")}`;
    return code <= 0xffff ? `\\u${code.toString(16).padStart(4, "0")}` : `\\u{${code.toString(16)}}`;
  });
}

/** The same for a text of several lines. */
export function neutraliseLines(text: string): string {
  return text.split(/\r?\n/).map(neutralise).join("\n");
}

/** One line of a program's output for a terminal: bytes that are not UTF-8 become `\ufffd`. */
export function neutraliseBytes(bytes: Uint8Array): string {
  const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
  // A program that ends its lines with CR LF means nothing by the CR.
  return neutralise(text.endsWith("\r") ? text.slice(0, -1) : text);
}
