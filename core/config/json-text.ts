import { type Fail, type LineNode, MAX_DEPTH, MAX_VALUES } from "./data-format.js";

const WHITESPACE = /[ \t\r\n]*/y;
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what a JSON string may not hold.
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const WORD = /true|false|null/y;

/**
 * JSON as RFC 8259 has it, with the line of every value. JSON.parse neither tells where a mistake is (not
 * in every Node that is supported) nor that a key stands there twice.
 */
export function parseJsonText(text: string, fail: Fail): { value: unknown; lines: LineNode } {
  let at = 0;
  let depth = 0;
  let count = 0;
  // Lines are counted forward only, so that every character is looked at once.
  let lineNumber = 1;
  let lineStart = 0;
  let nextBreak = text.indexOf("\n");

  function line(): number {
    while (nextBreak !== -1 && nextBreak < at) {
      lineNumber += 1;
      lineStart = nextBreak + 1;
      nextBreak = text.indexOf("\n", lineStart);
    }
    return lineNumber;
  }

  function refuse(problem: string, hint?: string): never {
    return fail(line(), at - lineStart + 1, problem, hint);
  }

  function take(pattern: RegExp): string | undefined {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0];
    if (found !== undefined) at += found.length;
    return found;
  }

  /** The next character that is not white space. */
  function peek(): string {
    take(WHITESPACE);
    return text[at] ?? "";
  }

  function unexpected(expected: string): never {
    const char = text[at] ?? "";
    if (char === "")
      return refuse(`it ends where ${expected} is expected`, "is the end of the file missing?");
    if (char === "/" || char === "#") return refuse("JSON has no comments", "use YAML, which has them");
    if (char === "'") return refuse(`${expected} is expected`, "use double quotes");
    return refuse(`${expected} is expected, and ${JSON.stringify(char)} was found`);
  }

  function value(): { value: unknown; lines: LineNode } {
    const char = peek();
    const start = line();
    if (++count > MAX_VALUES) refuse(`it has more than ${MAX_VALUES} values`, "split it up");
    if (char === "{" || char === "[") {
      if (++depth > MAX_DEPTH) refuse(`it is nested more than ${MAX_DEPTH} deep`);
      const made = char === "{" ? object() : array();
      depth -= 1;
      return { value: made.value, lines: { line: start, children: made.children } };
    }
    return { value: scalar(char), lines: { line: start } };
  }

  function scalar(char: string): unknown {
    if (char === '"') return string("a string");
    const literal = take(NUMBER) ?? take(WORD);
    return literal === undefined ? unexpected("a value") : JSON.parse(literal);
  }

  function string(expected: string): string {
    const literal = take(STRING);
    if (literal !== undefined) return JSON.parse(literal);
    if (text[at] !== '"') return unexpected(expected);
    return refuse(
      "this string is not closed, or holds a line break or an unknown escape",
      'write a line break as "\\n"',
    );
  }

  function object() {
    const entries = new Map<string, unknown>();
    const children = new Map<string, LineNode>();
    at += 1;
    for (let first = true; peek() !== "}"; first = false) {
      if (!first) comma("}");
      const start = line();
      const key = string("a key in double quotes");
      if (entries.has(key)) refuse(`the key ${JSON.stringify(key)} is there twice`, "remove one of them");
      if (peek() !== ":") unexpected('":"');
      at += 1;
      const made = value();
      entries.set(key, made.value);
      children.set(key, { ...made.lines, line: start });
    }
    at += 1;
    return { value: Object.fromEntries(entries), children };
  }

  function array() {
    const items: unknown[] = [];
    const children = new Map<string, LineNode>();
    at += 1;
    while (peek() !== "]") {
      if (items.length > 0) comma("]");
      const made = value();
      children.set(String(items.length), made.lines);
      items.push(made.value);
    }
    at += 1;
    return { value: items, children };
  }

  function comma(end: string): void {
    if (text[at] !== ",") unexpected(`"," or "${end}"`);
    at += 1;
    if (peek() === end) refuse(`there is a comma before "${end}"`, "remove the comma");
  }

  const root = value();
  if (peek() !== "") unexpected("the end of the file");
  return root;
}
