/** A value's place in the text, and those of what it holds, by key. */
export interface LineNode {
  readonly line: number;
  readonly children?: ReadonlyMap<string, LineNode>;
}

/** How the parsers refuse. Line and column from 1. */
export type Fail = (line: number, column: number | undefined, problem: string, hint?: string) => never;

/** Values in one text. Aliases count as often as they are used, so that a few lines cannot become millions. */
export const MAX_VALUES = 50_000;
export const MAX_DEPTH = 100;

/** `agents[0].params.goal`; `the document` for the root. */
export function pathText(path: readonly PropertyKey[]): string {
  const text = path.map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`)).join("");
  return text === "" ? "the document" : text.replace(/^\./, "");
}
