import type { Alias, ParsedNode, YAMLMap } from "yaml";

type Yaml = typeof import("yaml");
type Path = readonly PropertyKey[];
/** A node that is no alias. */
type Target = Exclude<ParsedNode, Alias> | null;

/** Refuses the text, naming the place that the offset stands for. */
export type Fail = (offset: number, problem: string, hint?: string) => never;

/** Values in one text. An alias counts each time it is used, so that a few lines cannot become millions. */
const MAX_VALUES = 50_000;
const MAX_DEPTH = 100;
export const TOO_DEEP = `nested more than ${MAX_DEPTH} deep`;

/** `agents[0].params.goal`; `the document` for the root. */
export function pathText(path: Path): string {
  const text = path.map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`)).join("");
  return text === "" ? "the document" : text.replace(/^\./, "");
}

export interface PlainValue {
  value: unknown;
  /** The place of the value at a path; where there is none, of the nearest value around it. */
  offsetOf(path: Path): number;
}

/** Turns the parser's nodes into plain values that share nothing. */
export function toPlain(yaml: Yaml, root: ParsedNode | null, fail: Fail): PlainValue {
  const resolve = createAliasResolver(yaml, fail);
  const offsets = new Map<string, number>();
  const open = new Set<Target>();
  const path: PropertyKey[] = [];

  function read(key: PropertyKey, node: ParsedNode | null, offset: number): unknown {
    path.push(key);
    const made = readHere(node, offset);
    path.pop();
    return made;
  }

  function readHere(node: ParsedNode | null, offset: number): unknown {
    offsets.set(keyOf(path), offset);
    if (offsets.size > MAX_VALUES) {
      fail(offset, `more than ${MAX_VALUES} values, aliases resolved`, "use fewer aliases, or split it up");
    }
    const target = resolve(node);
    if (yaml.isCollection(target)) return readCollection(target, offset);
    const value = target?.value ?? null;
    if (typeof value !== "number" || Number.isFinite(value)) return value;
    return fail(
      offset,
      `${pathText(path)} is not a finite number`,
      "put it in quotes if it is meant as text",
    );
  }

  function readCollection(node: Extract<Target, { items: unknown[] }>, offset: number): unknown {
    if (open.has(node))
      fail(offset, `${pathText(path)} contains itself`, "write it out instead of using an alias");
    if (open.size === MAX_DEPTH) fail(offset, TOO_DEEP);
    open.add(node);
    const made = yaml.isMap(node)
      ? readMap(node)
      : node.items.map((item, index) => read(index, item, item.range[0]));
    open.delete(node);
    return made;
  }

  function readMap({ items }: YAMLMap.Parsed): Record<string, unknown> {
    const made = new Map<string, unknown>();
    for (const { key, value } of items) {
      const [offset] = key.range;
      const name = nameOf(yaml, resolve(key), path, (problem, hint) => fail(offset, problem, hint));
      if (made.has(name)) fail(offset, `duplicate key "${name}"`, "remove one of the two");
      made.set(name, read(name, value, offset));
    }
    return Object.fromEntries(made);
  }

  return { value: readHere(root, root?.range[0] ?? 0), offsetOf: (of) => nearest(offsets, of) };
}

/** The text of a key of the mapping at `path`. */
function nameOf(yaml: Yaml, key: Target, path: Path, fail: (problem: string, hint: string) => never): string {
  if (yaml.isCollection(key)) {
    return fail(`${pathText(path)}: a key must be text`, 'put {{…}} in quotes, as in "{{params.name}}"');
  }
  const name = String(key?.value);
  if (name === "<<") fail("merge keys (<<) are not part of YAML 1.2", "write the fields out");
  if (name === "__proto__") fail(`${pathText([...path, name])} is not allowed as a key`, "remove it");
  return name;
}

/** Answers the node itself, or what it is an alias of. Must be asked in the order of the text: an anchor may be set anew. */
function createAliasResolver(yaml: Yaml, fail: Fail): (node: ParsedNode | null) => Target {
  const anchors = new Map<string, Target>();
  // What an alias repeats is read again, and must not set its anchors again.
  const known = new Map<ParsedNode, Target>();
  return (node) => {
    if (node === null) return null;
    const target = known.get(node) ?? (yaml.isAlias(node) ? anchors.get(node.source) : node);
    if (!target) return fail(node.range[0], "no anchor before this alias", "check its name");
    if (target === node && !known.has(node) && node.anchor !== undefined) anchors.set(node.anchor, target);
    known.set(node, target);
    return target;
  };
}

function keyOf(path: Path): string {
  return path.map(String).join("\0");
}

function nearest(offsets: ReadonlyMap<string, number>, path: Path): number {
  for (let length = path.length; length > 0; length--) {
    const offset = offsets.get(keyOf(path.slice(0, length)));
    if (offset !== undefined) return offset;
  }
  return offsets.get("") ?? 0;
}
