import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogFile, openLogFile } from "../../../../bin/daemon/log-file.js";
import { ROOT } from "../../../helpers/package.js";

let dir: string;
let path: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "openstarry-log-"));
  path = join(dir, "daemon.log");
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const linesOf = (file: string) => readFileSync(file, "utf8").trimEnd().split("\n");
const modeOf = (file: string) => (statSync(file).mode & 0o777).toString(8);

test("the log is appended to, and rotated when it is full", () => {
  writeFileSync(path, "12345\n", { mode: 0o644 });
  const log = createLogFile(dir, 10);
  log.write("678\n");
  expect([readFileSync(path, "utf8"), modeOf(path)]).toEqual(["12345\n678\n", "600"]);
  log.write("new\n");
  expect([readFileSync(path, "utf8"), readFileSync(`${path}.1`, "utf8")]).toEqual(["new\n", "12345\n678\n"]);
  expect(modeOf(`${path}.1`)).toBe("600");
});

test("two files of limited size hold the newest lines, whole and without a gap", () => {
  const log = createLogFile(dir, 1_000);
  for (let number = 1; number <= 500; number++) {
    log.write(`{"number":${number}}\n`);
    expect(statSync(path).size).toBeLessThanOrEqual(1_000);
  }
  const numbers = [...linesOf(`${path}.1`), ...linesOf(path)].map((line) => JSON.parse(line).number);
  expect(numbers.at(-1)).toBe(500);
  expect(numbers).toEqual(numbers.map((_, index) => 500 - numbers.length + 1 + index));
  expect(numbers.length).toBeGreaterThan(60);
});

test("a descriptor that is open for appending still writes to the log after a rotation", () => {
  const output = openLogFile(dir);
  const log = createLogFile(dir, 100);
  for (let number = 0; number < 50; number++) {
    log.write(`line ${number}\n`);
    writeSync(output, `crash ${number}\n`);
  }
  expect(linesOf(path).at(-1)).toBe("crash 49");
  const seen = [...linesOf(`${path}.1`), ...linesOf(path)];
  const first = Number(seen[0]?.split(" ")[1]);
  const expected = [];
  for (let number = first; number < 50; number++) expected.push(`line ${number}`, `crash ${number}`);
  expect(seen).toEqual(seen[0]?.startsWith("crash") ? expected.slice(1) : expected);
});

test("no line is lost if the archive cannot be written", () => {
  mkdirSync(`${path}.1`);
  const log = createLogFile(dir, 100);
  for (let number = 0; number < 100; number++) log.write(`line ${number}\n`);
  expect(linesOf(path)).toEqual([...Array(100).keys()].map((number) => `line ${number}`));
  rmSync(`${path}.1`, { recursive: true });
  for (let number = 100; number < 120; number++) log.write(`line ${number}\n`);
  expect(statSync(`${path}.1`).isFile()).toBe(true);
  expect(statSync(path).size).toBeLessThanOrEqual(100);
});

test("a line that cannot be written completely is dropped and counted", () => {
  const script = `
    import { execFileSync } from "node:child_process";
    import { createLogFile } from ${JSON.stringify(join(ROOT, "dist/bin/daemon/log-file.js"))};
    const log = createLogFile(${JSON.stringify(dir)});
    for (let number = 0; number < 30; number++) log.write("line " + number + "\\n");
    execFileSync("prlimit", ["--pid", String(process.pid), "--fsize=100000:"]);
    log.write("again\\n");
  `;
  // What is over the limit of a file's size is refused in the same way as by a full disk.
  const limited = ["--fsize=100:100000", process.execPath, "--input-type=module", "-e", script];
  execFileSync("prlimit", limited);
  const lines = linesOf(path);
  const written = lines.length - 2;
  expect(lines.slice(0, written)).toEqual([...Array(written).keys()].map((number) => `line ${number}`));
  expect(JSON.parse(lines[written] ?? "")).toMatchObject({ level: "warn", lost: 30 - written });
  expect([written, lines.at(-1)]).toEqual([13, "again"]);
});
