import stringWidth from "string-width";

const graphemes = new Intl.Segmenter();

/** Columns that a terminal uses for a text; East Asian characters and emoji take two. */
export function displayWidth(text: string): number {
  return stringWidth(text);
}

/** Cuts a text to a width, with an ellipsis where something is missing. */
export function truncate(text: string, width: number): string {
  if (displayWidth(text) <= width) return text;
  let kept = "";
  let used = 0;
  for (const { segment } of graphemes.segment(text)) {
    used += displayWidth(segment);
    if (used > width - 1) break;
    kept += segment;
  }
  return `${kept}…`;
}

/**
 * Breaks a text between words into lines of at most `width` columns; a longer word is broken where the line
 * ends. `hanging`: the indentation of the lines after the first.
 */
export function wrap(text: string, width: number, hanging = 0): string[] {
  return text.split("\n").flatMap((line) => wrapLine(line, width, hanging));
}

function wrapLine(text: string, width: number, hanging: number): string[] {
  const lines: string[] = [];
  let line = "";
  const begin = () => {
    lines.push(line.trimEnd());
    line = " ".repeat(hanging);
  };
  for (const word of text.split(/(?<= )/)) {
    if (displayWidth(line + word.trimEnd()) > width && line.trim() !== "") begin();
    for (const { segment } of graphemes.segment(word)) {
      if (segment !== " " && displayWidth(line + segment) > width) begin();
      line += segment;
    }
  }
  return [...lines, line.trimEnd()];
}
