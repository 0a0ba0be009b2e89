import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { parseParams } from "../../../bin/params.js";

const dir = mkdtempSync(join(tmpdir(), "openstarry-params-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

test.each([
  ["7", { type: "string" }, "7"],
  ["7", {}, "7"],
  ["7", { type: "integer" }, 7],
  ["0.5", { type: "number" }, 0.5],
  ["true", { type: "boolean" }, true],
  ["[1,2]", { type: "array" }, [1, 2]],
  ['{"a":1}', { type: "object" }, { a: 1 }],
  ["null", { type: ["null", "integer"] }, null],
  ["null", { type: ["null", "string"] }, "null"],
  ["1", { enum: [1, 2] }, 1],
  ["1", { enum: ["1", "2"] }, "1"],
  ["3", { enum: ["1", "2"] }, 3],
  ["5", { const: 5 }, 5],
  ["not json", { type: "integer" }, "not json"],
  ["@@home", { type: "string" }, "@home"],
])("the value %s for the schema %o is %j", (text, schema, expected) => {
  expect(parseParams({ it: text }, { it: schema })).toEqual({ it: expected });
});

test("@file reads a file, and parses it as JSON unless a string is expected", () => {
  const file = join(dir, "value");
  writeFileSync(file, '["a", "b"]\n');
  const schemas = { list: { type: "array" }, text: { type: "string" } };
  expect(parseParams({ list: `@${file}`, text: `@${file}` }, schemas)).toEqual({
    list: ["a", "b"],
    text: '["a", "b"]\n',
  });
});

test("a missing file is reported with the parameter's name", () => {
  expect(() => parseParams({ question: `@${dir}/absent` }, {})).toThrow(
    expect.objectContaining({
      code: "params_invalid",
      message: expect.stringMatching(/--param question: .*absent/),
    }),
  );
});

test("an undeclared parameter is passed on", () => {
  expect(parseParams({ extra: "1", constructor: "2" }, {})).toEqual({ extra: "1", constructor: "2" });
});
