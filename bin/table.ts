import { neutralise } from "./neutralise.js";
import type { Style, Terminal } from "./output.js";
import { displayWidth, truncate } from "./text-layout.js";

export interface Column<Row> {
  header: string;
  /** May be untrusted text of agents: the table neutralises it. */
  value: (row: Row) => string | undefined;
  align?: "right";
  style?: (row: Row) => readonly Style[];
  /** Cut first when the terminal is narrow. One column at most. */
  flexible?: boolean;
}

/** Lays out a table: a header, then a line per row; absent values are shown as "-". */
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

/** Lays out names and values in two columns; absent values are left out. */
export function facts(
  terminal: Terminal,
  entries: readonly (readonly [string, string | undefined])[],
): string[] {
  const known = entries.filter((entry): entry is readonly [string, string] => entry[1] !== undefined);
  const width = Math.max(0, ...known.map(([name]) => displayWidth(name)));
  return known.map(([name, value]) => `${terminal.style(name.padEnd(width), "dim")}  ${value}`);
}
