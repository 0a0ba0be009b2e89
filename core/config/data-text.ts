import { type ErrorCode, OpenStarryError } from "../contracts/errors.js";
import { jsonProblem } from "./json-problem.js";
import { type Fail, TOO_DEEP, toPlain } from "./plain-value.js";

/** What JSON can hold, as read from a file that a person wrote. */
export interface DataText {
  readonly value: unknown;
  /** The line, from 1, of the value at this path; of the nearest value around it that exists. */
  lineOf(path: readonly PropertyKey[]): number;
}

export interface ParseDataOptions {
  /** `either`: JSON if the text is valid JSON, else YAML. */
  format: "json" | "yaml" | "either";
  code: ErrorCode;
  /** What is parsed, for messages: `config /etc/openstarry/openstarry.config.yaml`. */
  what: string;
}

/** What to do about the mistakes that people make most, by the parser's error code. */
const HINTS: Readonly<Record<string, string>> = {
  TAB_AS_INDENT: "indent with spaces",
  BAD_INDENT: "check the indentation, and that every bracket and quote is closed",
  BLOCK_AS_IMPLICIT_KEY: 'indent it like its neighbours, and quote text that contains ": "',
  MISSING_CHAR: "check the brackets and quotes around here",
  TAG_RESOLVE_FAILED: "remove the tag: only plain values are read",
};

/**
 * Reads JSON or YAML (1.2, core schema: no dates, no merge keys, no custom tags). Refuses what either would
 * let pass unseen, with its line: duplicate keys, cycles, `__proto__`, numbers that are not finite, and keys
 * that are not text. The value of an empty text is `undefined`.
 */
export async function parseData(text: string, options: ParseDataOptions): Promise<DataText> {
  if (text.trim() === "") return { value: undefined, lineOf: () => 1 };
  // Loaded when needed: a daemon that reads no such file does without it.
  const yaml = await import("yaml");
  const lines = new yaml.LineCounter();
  const fail: Fail = (offset, problem, hint) => {
    const { line, col } = lines.linePos(offset);
    const detail = `${options.what}: line ${line}, column ${col}: ${problem}`;
    throw new OpenStarryError(options.code, { detail, hint, data: { line } });
  };
  // JSON is YAML, so that one parser knows the places of both.
  const document = yaml.parseDocument(text, {
    schema: "core",
    resolveKnownTags: false,
    // Here the parser would compare each key with every other; the reader below checks it with a set.
    uniqueKeys: false,
    lineCounter: lines,
    prettyErrors: false,
  });
  const [problem] = [...document.errors, ...document.warnings];
  if (problem?.code === "RESOURCE_EXHAUSTION") fail(problem.pos[0], TOO_DEEP);
  if (problem?.code === "MULTIPLE_DOCS") {
    fail(problem.pos[0], "more than one document", 'write one document, without "---" in it');
  }
  const notJson = options.format === "json" ? jsonProblem(yaml, text) : undefined;
  if (notJson) fail(notJson.offset, notJson.problem, notJson.hint);
  if (problem) fail(problem.pos[0], problem.message, HINTS[problem.code]);
  const { value, offsetOf } = toPlain(yaml, document.contents, fail);
  return { value, lineOf: (path) => lines.linePos(offsetOf(path)).line };
}
