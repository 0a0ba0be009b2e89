import { displayWidth } from "./table.js";

/**
 * A text in lines of at most `width` columns, broken between words; a word that is longer is broken
 * where the line ends. `hanging`: how far the lines after the first are moved in.
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
    for (const character of word) {
      if (character !== " " && displayWidth(line + character) > width) begin();
      line += character;
    }
  }
  return [...lines, line.trimEnd()];
}
