import { CORE_SCHEMA, load, type ParserState, YAMLException } from "js-yaml";
import { type Fail, type LineNode, MAX_DEPTH } from "./data-format.js";

/** A node that the parser is reading. */
interface Frame {
  line: number;
  parts: { node: LineNode; value: unknown }[];
}

/** YAML 1.2 with the core schema, with the line of every value. */
export function parseYamlText(text: string, fail: Fail): { value: unknown; lines: LineNode } {
  const recorder = recordLines(fail);
  try {
    const value = load(text, { schema: CORE_SCHEMA, maxDepth: MAX_DEPTH, listener: recorder.listener });
    return { value, lines: recorder.root() };
  } catch (error) {
    if (!(error instanceof YAMLException)) throw error;
    const { reason, mark } = error;
    return fail((mark?.line ?? 0) + 1, mark && mark.column + 1, reason, hintFor(reason));
  }
}

function hintFor(reason: string): string | undefined {
  if (reason.startsWith("tab characters")) return "indent with spaces";
  if (reason.startsWith("duplicated mapping key")) return "remove one of the two";
  if (reason.startsWith("unknown tag")) return "remove the tag; only plain values are read";
  if (reason.startsWith("bad indentation")) {
    return 'line it up with its neighbours, and put a text that holds ": " in quotes';
  }
  if (reason.startsWith("end of the stream")) return "check the quotes and the indentation around here";
  if (reason.startsWith("expected a single document")) return 'write one document, without "---" in it';
  return undefined;
}

/**
 * The parser tells when it enters and leaves a node, innermost last; from that comes the tree of lines.
 * It may enter a node twice, as a whole and as the collection or the plain text that it turns out to be.
 */
function recordLines(fail: Fail) {
  const open: Frame[] = [];
  let root: LineNode = { line: 1 };

  function listener(event: "open" | "close", state: ParserState): void {
    if (event === "open") {
      open.push({ line: state.line + 1, parts: [] });
      return;
    }
    const frame = open.pop();
    if (!frame) return;
    const node = nodeOf(frame, state.result);
    const parent = open.at(-1);
    if (parent) parent.parts.push({ node, value: state.result });
    else root = node;
  }

  function nodeOf({ line, parts }: Frame, value: unknown): LineNode {
    if (typeof value !== "object" || value === null) return { line };
    const [only] = parts;
    if (parts.length === 1 && only?.value === value) return only.node;
    if (Array.isArray(value)) {
      if (parts.length !== value.length) return { line };
      return { line, children: new Map(parts.map(({ node }, index) => [String(index), node])) };
    }
    // In "{a, b: 1}" a value is missing, and keys and values no longer take turns.
    return parts.length === 2 * Object.keys(value).length ? { line, children: entriesOf(parts) } : { line };
  }

  /** Keys and values take turns. */
  function entriesOf(parts: Frame["parts"]): Map<string, LineNode> {
    const children = new Map<string, LineNode>();
    for (let index = 0; index + 1 < parts.length; index += 2) {
      const [key, value] = [parts[index], parts[index + 1]];
      if (!key || !value) break;
      checkKey(key.value, key.node.line);
      children.set(String(key.value), { ...value.node, line: key.node.line });
    }
    return children;
  }

  function checkKey(key: unknown, line: number): void {
    if (typeof key === "object" && key !== null) {
      fail(line, undefined, "a key must be text", 'put {{…}} in quotes, as in "{{params.name}}"');
    }
    if (key === "<<") {
      fail(line, undefined, "merge keys (<<) are not part of YAML 1.2", "write the fields out");
    }
  }

  return { listener, root: () => root };
}
