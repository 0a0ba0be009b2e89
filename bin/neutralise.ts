/** Characters that control a terminal or change how the text around them is shown. */
const UNSAFE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the pattern is there to find them
  /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]|[\ud800-\udfff]/gu;

/**
 * Makes untrusted text safe to print on a terminal as one line: escape sequences, control characters and
 * bidirectional marks become visible (`\x1b`, `\u202e`). Tabs stay.
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

/** Neutralises each line of a text. */
export function neutraliseLines(text: string): string {
  return text.split(/\r?\n/).map(neutralise).join("\n");
}

/** Neutralises one line of a program's output; bytes that are not UTF-8 become `\ufffd`. */
export function neutraliseBytes(bytes: Uint8Array): string {
  const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
  // The CR of a CR LF line end is not content.
  return neutralise(text.endsWith("\r") ? text.slice(0, -1) : text);
}
