import { expect, test } from "vitest";
import { hintForCommandLine } from "../../../bin/cli-hints.js";
import { formatRecord } from "../../../bin/daemon/log-format.js";
import { neutralise, neutraliseBytes } from "../../../bin/neutralise.js";
import { wantsColour } from "../../../bin/output.js";
import { printError } from "../../../bin/print-error.js";
import { facts, table } from "../../../bin/table.js";
import { displayWidth, truncate } from "../../../bin/text-layout.js";
import { OpenStarryError } from "../../../core/contracts/errors.js";
import { createTestTerminal } from "../../helpers/test-terminal.js";

const ESC = "\u001b";

test.each([
  ["plain", "plain"],
  ["tab\tstays", "tab\tstays"],
  [`${ESC}]0;owned\u0007`, "\\x1b]0;owned\\x07"],
  [`${ESC}[2J`, "\\x1b[2J"],
  [`${ESC}]52;c;cm0gLXJmIC8=${ESC}\\`, "\\x1b]52;c;cm0gLXJmIC8=\\x1b\\"],
  ["\u009b2J", "\\x9b2J"],
  ["50%\r100%", "50%\\r100%"],
  ["one\ntwo", "one\\ntwo"],
  ["\u202etxt.exe", "\\u202etxt.exe"],
  ["\u2066\u2069\u200b\ufeff\u2028", "\\u2066\\u2069\\u200b\\ufeff\\u2028"],
  ["\u{e0041}", "\\u{e0041}"],
  ["\ud800", "\\ud800"],
  ["Größe 漢字 👩‍👩‍👧 é", "Größe 漢字 👩‍👩‍👧 é"],
])("%j is shown as %j", (text, shown) => {
  expect(neutralise(text)).toBe(shown);
});

test("bytes that are not UTF-8 are shown as U+FFFD, and the CR of a CR LF is dropped", () => {
  expect(neutraliseBytes(Buffer.from([0x61, 0xff, 0xc3, 0x62]))).toBe("a\ufffd\ufffdb");
  expect(neutraliseBytes(Buffer.from("line\r"))).toBe("line");
  expect(neutraliseBytes(Buffer.from("\ufeffbom"))).toBe("\\ufeffbom");
});

test.each([
  [true, {}, true],
  [false, {}, false],
  [true, { NO_COLOR: "1" }, false],
  [true, { NO_COLOR: "" }, true],
  [true, { TERM: "dumb" }, false],
  [false, { FORCE_COLOR: "1" }, true],
  [true, { FORCE_COLOR: "0" }, false],
  [true, { FORCE_COLOR: "1", NO_COLOR: "1" }, false],
])("terminal %s with %o: colours %s", (isTTY, env, expected) => {
  expect(wantsColour(isTTY, env)).toBe(expected);
});

test("a table that is not printed on a terminal has no colours and is not cut", () => {
  const { terminal } = createTestTerminal();
  const lines = table(
    terminal,
    [{ id: "a", about: "x".repeat(300) }],
    [
      { header: "ID", value: ({ id }) => id, style: () => ["red"] },
      { header: "ABOUT", value: ({ about }) => about, flexible: true },
    ],
  );
  expect(lines).toEqual(["ID  ABOUT", `a   ${"x".repeat(300)}`]);
});

test("a table fits the terminal, shrinks the flexible column first, and neutralises unsafe text", () => {
  const { terminal } = createTestTerminal({ columns: 40, env: { NO_COLOR: "1" } });
  const rows = [
    { id: "first", n: 7, about: `${ESC}[31m${"long ".repeat(20)}` },
    { id: "漢字", n: 12_345, about: undefined },
  ];
  const lines = table(terminal, rows, [
    { header: "ID", value: ({ id }) => id },
    { header: "N", value: ({ n }) => String(n), align: "right" },
    { header: "ABOUT", value: ({ about }) => about, flexible: true },
  ]);
  expect(lines).toEqual([
    "ID         N  ABOUT",
    "first      7  \\x1b[31mlong long long lo…",
    "漢字   12345  -",
  ]);
  expect(lines.map(displayWidth).every((width) => width <= 40)).toBe(true);
});

test("emoji keep the columns of a table aligned", () => {
  const { terminal } = createTestTerminal();
  const rows = ["ok", "🚀 on its way", "✅", "👩‍👩‍👧", "🇩🇪"];
  const lines = table(terminal, rows, [
    { header: "STATUS", value: (status) => status },
    { header: "X", value: () => "x" },
  ]);
  expect(lines).toEqual([
    "STATUS         X",
    "ok             x",
    "🚀 on its way  x",
    "✅             x",
    "👩‍👩‍👧             x",
    "🇩🇪             x",
  ]);
});

test("colours enclose the text, not the padding", () => {
  const { terminal } = createTestTerminal({ columns: 80 });
  const lines = table(
    terminal,
    ["ok", "failed"],
    [
      { header: "STATE", value: (state) => state, style: (state) => (state === "ok" ? ["green"] : []) },
      { header: "X", value: () => "x" },
    ],
  );
  expect(lines[1]).toBe(`${ESC}[32mok${ESC}[39m      x`);
});

test.each([
  ["short", 10, "short"],
  ["exactly", 7, "exactly"],
  ["too long", 5, "too …"],
  ["漢字漢字", 5, "漢字…"],
  ["漢字漢字", 4, "漢…"],
  ["👩‍👩‍👧👩‍👩‍👧", 3, "👩‍👩‍👧…"],
])("%s in %i columns is %s", (text, width, expected) => {
  expect(truncate(text, width)).toBe(expected);
});

test.each([
  ["abc", 3],
  ["漢", 2],
  ["e\u0301", 1],
  ["👍", 2],
  ["✅", 2],
  ["🚀", 2],
  ["❤️", 2],
  ["🇩🇪", 2],
  ["👩‍👩‍👧", 2],
  ["1️⃣", 2],
  ["✓", 1],
  ["└─ ", 3],
])("%s takes %i columns", (text, width) => {
  expect(displayWidth(text)).toBe(width);
});

test("facts leave out unknown values", () => {
  const { terminal } = createTestTerminal();
  const lines = facts(terminal, [
    ["pid", "7"],
    ["socket", undefined],
    ["version", "1"],
  ]);
  expect(lines).toEqual(["pid      7", "version  1"]);
});

test("an error prints its detail and hint to standard error, neutralised, and has the exit code of its code", () => {
  const { terminal, stdout, stderr } = createTestTerminal();
  const error = new OpenStarryError("agent_not_found", {
    detail: `there is no agent "${ESC}[2J"\nat all`,
    hint: "openstarry-daemon list",
  });
  expect(printError(terminal, error)).toBe(4);
  expect(stderr()).toBe('error: there is no agent "\\x1b[2J"\nat all\nhint: openstarry-daemon list\n');
  expect(stdout()).toBe("");
});

test("an unexpected error exits with 1 and prints its stack", () => {
  const { terminal, stderr } = createTestTerminal();
  expect(printError(terminal, new TypeError("x is not a function"))).toBe(1);
  expect(stderr()).toMatch(/^error: internal error: x is not a function\n/);
  expect(stderr()).toMatch(/output\.test\.ts/);
});

test("a log record is printed as one line, whatever it contains", () => {
  const record = {
    level: "warn",
    time: "2026-01-02T03:04:05.678Z",
    plugin: "audit",
    text: "two words",
    err: { message: `broke\n12:00:00.000 info  forged${ESC}[2J`, stack: "Error: broke\n at x" },
    msg: "a tap failed\r\nforged",
  };
  const line = formatRecord(JSON.stringify(record), false);
  expect(line).toBe(
    '03:04:05.678 warn  a tap failed\\r\\nforged  plugin=audit  text="two words"  ' +
      'err="broke\\n12:00:00.000 info  forged\\u001b[2J"\n',
  );
  expect(formatRecord(JSON.stringify(record), true)).toContain(`${ESC}[33mwarn ${ESC}[39m`);
});

test.each([
  ["GET /agents lists the agents that there are", "openstarry-daemon list lists the agents that there are"],
  ["wait for it with GET /agents/a.b?wait_for=ended", "wait for it with openstarry-daemon wait a.b"],
  ["GET /agents/x/why tells what became of it", "openstarry-daemon why x tells what became of it"],
  [
    "POST /agents/x/start or DELETE /agents/x",
    "openstarry-daemon agent start x or openstarry-daemon agent rm x",
  ],
  ["look at GET /agents/x, then act", "look at openstarry-daemon agent status x, then act"],
  ["its result: GET /agents/x/result; then", "its result: openstarry-daemon wait x --result; then"],
  ["DELETE /agents/x?force=true ends it", "openstarry-daemon agent rm x --force ends it"],
  ["create agent x with POST /agents; or", "create agent x with openstarry-daemon run; or"],
  ["GET /templates, or GET /plugins", "openstarry-daemon templates, or openstarry-daemon plugins"],
  ["GET /openapi.json lists the operations", "GET /openapi.json lists the operations"],
])("the hint %s reads %s", (hint, expected) => {
  expect(hintForCommandLine(hint)).toBe(expected);
});
