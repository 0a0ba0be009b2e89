import { describe, expect, it } from "vitest";
import { isOpenStarryError, parseData } from "../../../../core/index.js";
import { seeded } from "../../../helpers/seeded.js";

type Format = Parameters<typeof parseData>[1]["format"];

async function parse(text: string, format: Format = "yaml"): Promise<unknown> {
  return (await parseData(text, { format, code: "config_invalid", what: "text" })).value;
}

async function refusal(text: string, format: Format = "yaml") {
  const error = await parse(text, format).catch((it) => it);
  if (!isOpenStarryError(error))
    throw new Error(`expected a refusal of ${text}, got ${JSON.stringify(error)}`);
  return { problem: error.message.replace("text: ", ""), hint: error.hint };
}

describe("JSON", () => {
  it("reads any valid JSON as JSON.parse reads it", async () => {
    const random = seeded(1);
    const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
    const leaves = [
      0,
      -0,
      1e21,
      -1.5e-7,
      1e308,
      true,
      false,
      null,
      "",
      " ",
      "a: b",
      "#",
      "- x",
      "\\/\"'",
      "é\u2028😀\u0007",
      "\ud800",
      "~",
      "12",
      "k".repeat(2_000),
    ];
    const made = (depth: number): unknown => {
      if (depth === 0 || random() < 0.3) return pick(leaves);
      const items = Array.from({ length: Math.floor(random() * 4) }, () => made(depth - 1));
      return random() < 0.5
        ? items
        : Object.fromEntries(items.map((it, index) => [`${pick(leaves)}${index}`, it]));
    };
    for (let round = 0; round < 500; round++) {
      const text = JSON.stringify(made(4), undefined, pick(["", "  ", "\t"]));
      expect([text, await parse(text, "json")]).toEqual([text, JSON.parse(text)]);
    }
  });

  it.each<[string, string, string?]>([
    ["[1,\n]", 'line 2, column 1: trailing comma before "]"', "remove the comma"],
    ['{"a": 1,}', 'line 1, column 9: trailing comma before "}"', "remove the comma"],
    ['{\n"a": // x\n1}', "line 2, column 6: JSON has no comments", "use YAML, which has them"],
    ['{"a": 1 # x\n}', "line 1, column 9: JSON has no comments", "use YAML, which has them"],
    ["{\n'a': 1}", "line 2, column 1: Expected property name or '}'", "use double quotes"],
    ["[1, 'a']", "line 1, column 5: Unexpected token '''", "use double quotes"],
    ["[1,\n nul]", "line 2, column 2: Unexpected token ']'"],
    ["[1,\n undefined]", "line 2, column 2: Unexpected token 'u'"],
    ['{"a": [}', "line 1, column 8: Unexpected token '}'"],
    ['{"a":}', "line 1, column 6: Unexpected token '}'"],
    ['{"a": 1\n "b": 2}', "line 2, column 2: Expected ',' or '}' after property value"],
    ["[&a 1]", "line 1, column 2: Unexpected token '&'"],
    ['{"a": "x', "line 1, column 9: Unterminated string"],
    ["{} {}", "line 1, column 4: Unexpected non-whitespace character after JSON"],
    ["a: 1", "line 1, column 1: Unexpected token 'a'"],
  ])("refuses %j with its place", async (text, problem, hint) => {
    expect(await refusal(text, "json")).toEqual({ problem, hint });
  });

  it("is not expected of a text that may be either", async () => {
    expect(await parse('{"a": 1}', "either")).toEqual({ a: 1 });
    expect(await parse("a: 1", "either")).toEqual({ a: 1 });
  });
});

describe("YAML", () => {
  it("reads the core schema of YAML 1.2, whatever version a text declares", async () => {
    expect(await parse("[yes, 2001-01-01, 0o17, 0x1F, 1e3, ~, 'on', !!str 1]")).toEqual([
      "yes",
      "2001-01-01",
      15,
      31,
      1000,
      null,
      "on",
      "1",
    ]);
    expect(await parse("%YAML 1.1\n---\na: yes\n")).toEqual({ a: "yes" });
  });

  it("reads comments alone as null", async () => {
    expect(await parse("# nothing here\n")).toBeNull();
  });

  it("copies what an alias repeats, with the anchor as it was when the alias was read", async () => {
    const text = "a: &x [&y 1, *y]\nb: &y 2\nc: *x\nd: *y\n";
    const value = (await parse(text)) as { a: unknown; c: unknown };
    expect(value).toEqual({ a: [1, 1], b: 2, c: [1, 1], d: 2 });
    expect(value.a).not.toBe(value.c);
  });

  it.each<[string, string, string?]>([
    ["a: *x\nb: &x 1\n", "line 1, column 4: no anchor before this alias", "check its name"],
    [
      "a: 1\n---\nb: 2\n",
      "line 2, column 1: more than one document",
      'write one document, without "---" in it',
    ],
    [
      "a: !!binary eA==\n",
      "line 1, column 4: Unresolved tag: tag:yaml.org,2002:binary",
      "remove the tag: only plain values are read",
    ],
    [
      "a: b: c\n",
      "line 1, column 4: Nested mappings are not allowed in compact mappings",
      'indent it like its neighbours, and quote text that contains ": "',
    ],
    ["a: .inf\n", "line 1, column 1: a is not a finite number", "put it in quotes if it is meant as text"],
  ])("refuses %j with its place", async (text, problem, hint) => {
    expect(await refusal(text)).toEqual({ problem, hint });
  });

  it("knows the line of each value, and of the nearest one for a path that leads nowhere", async () => {
    const text = "a:\r\n  - b: 1\r\n    c: {d: 2}\r\n\r\ne: 3\r\n";
    const { lineOf } = await parseData(text, { format: "yaml", code: "config_invalid", what: "text" });
    const paths = [[], ["a"], ["a", 0], ["a", 0, "c", "d"], ["a", 0, "x", "y"], ["e"], ["z"]];
    expect(paths.map(lineOf)).toEqual([1, 1, 2, 3, 2, 5, 1]);
  });
});
