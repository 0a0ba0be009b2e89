import { neutralise } from "./neutralise.js";
import type { Style, Terminal } from "./output.js";

export interface Column<Row> {
  header: string;
  /** May hold text of agents: it is made safe here. */
  value: (row: Row) => string | undefined;
  align?: "right";
  style?: (row: Row) => readonly Style[];
  /** Cut first when the terminal is narrow. One column at most. */
  flexible?: boolean;
}

/** Lines of a table: a header, then a line per row; absent values are shown as "-". */
export function table<Row>(
  terminal: Terminal,
  rows: readonly Row[],
  columns: readonly Column<Row>[],
): string[] {
  const cells = rows.map((row) => columns.map((column) => neutralise(column.value(row) ?? "-")));
  const widths = columns.map((column, index) =>
    Math.max(displayWidth(column.header), ...cells.map((line) => displayWidth(line[index] ?? ""))),
  );
  shrink(widths, columns, terminal.columns);
  const layout = (texts: readonly string[], styleOf: (index: number) => readonly Style[]) =>
    texts
      .map((text, index) => {
        const width = widths[index] ?? 0;
        const shown = truncate(text, width);
        const padding = " ".repeat(Math.max(0, width - displayWidth(shown)));
        const painted = terminal.style(shown, ...styleOf(index));
        return columns[index]?.align === "right" ? padding + painted : painted + padding;
      })
      .join("  ")
      .trimEnd();
  const header = layout(
    columns.map((column) => column.header),
    () => ["dim"],
  );
  return [
    header,
    ...cells.map((line, at) => layout(line, (index) => columns[index]?.style?.(rows[at] as Row) ?? [])),
  ];
}

const NARROWEST = 12;

function shrink(widths: number[], columns: readonly Column<never>[], available: number | undefined): void {
  if (available === undefined) return;
  const flexible = columns.findIndex((column) => column.flexible);
  const order = [flexible, ...widths.map((_, index) => index).reverse()].filter((index) => index >= 0);
  const gaps = 2 * (widths.length - 1);
  for (const index of order) {
    const excess = widths.reduce((sum, width) => sum + width, gaps) - available;
    if (excess <= 0) return;
    const width = widths[index] ?? 0;
    widths[index] = Math.max(Math.min(width, NARROWEST), width - excess);
  }
}

/** Cuts to a width, with an ellipsis where something is missing. */
export function truncate(text: string, width: number): string {
  if (displayWidth(text) <= width) return text;
  let kept = "";
  let used = 0;
  for (const character of text) {
    used += displayWidth(character);
    if (used > width - 1) break;
    kept += character;
  }
  return `${kept}…`;
}

const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|[\u{1f300}-\u{1f64f}]|[\u{1f900}-\u{1f9ff}]|[\u{20000}-\u{3fffd}]/u;
const WIDTHLESS = /\p{Mn}|\p{Me}|\u200c|\u200d|\ufe0f/u;

/** Columns that a terminal uses for a text; wide (East Asian, emoji) characters take two. */
export function displayWidth(text: string): number {
  let width = 0;
  for (const character of text) {
    if (character <= "\u02ff") width += 1;
    else if (!WIDTHLESS.test(character)) width += WIDE.test(character) ? 2 : 1;
  }
  return width;
}

/** "name: value" lines, the names in one column; absent values are left out. */
export function facts(
  terminal: Terminal,
  entries: readonly (readonly [string, string | undefined])[],
): string[] {
  const known = entries.filter((entry): entry is readonly [string, string] => entry[1] !== undefined);
  const width = Math.max(0, ...known.map(([name]) => displayWidth(name)));
  return known.map(([name, value]) => `${terminal.style(name.padEnd(width), "dim")}  ${value}`);
}
