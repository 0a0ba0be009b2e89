import { type ErrorCode, OpenStarryError } from "../contracts/errors.js";
import { type Fail, type LineNode, MAX_VALUES, pathText } from "./data-format.js";
import { parseJsonText } from "./json-text.js";

/** What JSON can hold, as it comes out of a file that a person wrote. */
export interface DataText {
  readonly value: unknown;
  /** The line, from 1, of the value at this path; of the nearest one around it that has one. */
  lineOf(path: readonly PropertyKey[]): number;
}

export interface ParseDataOptions {
  /** `either`: JSON where it is JSON, else YAML. */
  format: "json" | "yaml" | "either";
  code: ErrorCode;
  /** What is parsed, for messages: `config /etc/openstarry/openstarry.config.yaml`. */
  what: string;
}

/**
 * Reads JSON or YAML (1.2, core schema: no dates, no merge keys, no tags). Stricter than either where a
 * mistake would pass unseen: duplicate keys, cycles, `__proto__`, numbers without a finite value and keys
 * that are no text are refused, with their line. An empty text is `undefined`.
 */
export async function parseData(text: string, options: ParseDataOptions): Promise<DataText> {
  const fail: Fail = (line, column, problem, hint) => {
    const place = column === undefined ? `line ${line}` : `line ${line}, column ${column}`;
    throw new OpenStarryError(options.code, {
      detail: `${options.what}: ${place}: ${problem}`,
      ...(hint === undefined ? {} : { hint }),
      data: { line },
    });
  };
  if (text.trim() === "") return { value: undefined, lineOf: () => 1 };
  const { value, lines } = await parse(text, options.format, fail);
  const lineOf = (path: readonly PropertyKey[]) => find(lines, path);
  return {
    value: copyPlain(value, (path, problem, hint) => fail(lineOf(path), undefined, problem, hint)),
    lineOf,
  };
}

async function parse(
  text: string,
  format: ParseDataOptions["format"],
  fail: Fail,
): Promise<{ value: unknown; lines: LineNode }> {
  if (format === "json" || (format === "either" && isJson(text))) return parseJsonText(text, fail);
  // Loaded when needed: a daemon without YAML has no use for it.
  const { parseYamlText } = await import("./yaml-text.js");
  return parseYamlText(text, fail);
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function find(root: LineNode, path: readonly PropertyKey[]): number {
  let node = root;
  for (const key of path) {
    const child = node.children?.get(String(key));
    if (!child) break;
    node = child;
  }
  return node.line;
}

type FailAt = (path: readonly PropertyKey[], problem: string, hint?: string) => never;

/** A copy in which nothing is shared. */
function copyPlain(root: unknown, fail: FailAt): unknown {
  const open = new Set<object>();
  const path: PropertyKey[] = [];
  let count = 0;

  function copy(value: unknown): unknown {
    if (++count > MAX_VALUES) {
      fail(
        path,
        `it has more than ${MAX_VALUES} values, aliases resolved`,
        "use fewer aliases, or split it up",
      );
    }
    if (typeof value === "number" && !Number.isFinite(value)) {
      fail(path, `${pathText(path)} is not a finite number`, "put it in quotes if it is meant as text");
    }
    if (typeof value !== "object" || value === null) return value;
    if (open.has(value))
      fail(path, `${pathText(path)} holds itself`, "write it out instead of using an alias");
    open.add(value);
    const made = Array.isArray(value) ? value.map((it, index) => inside(index, it)) : copyObject(value);
    open.delete(value);
    return made;
  }

  function copyObject(value: object): Record<string, unknown> {
    const entries = Object.entries(value).map(([key, it]): [string, unknown] => {
      if (key === "__proto__") {
        fail([...path, key], `${pathText([...path, key])} is not a key that may be used`, "remove it");
      }
      // What YAML makes of a mapping as a key, and so of {{…}} without quotes.
      if (key === "[object Object]") {
        fail(path, `${pathText(path)}: a key must be text`, 'put {{…}} in quotes, as in "{{params.name}}"');
      }
      return [key, inside(key, it)];
    });
    return Object.fromEntries(entries);
  }

  function inside(key: PropertyKey, value: unknown): unknown {
    path.push(key);
    const made = copy(value);
    path.pop();
    return made;
  }

  return copy(root);
}
