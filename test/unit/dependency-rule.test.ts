import { execFile } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const BIN = join(ROOT, "node_modules/.bin");

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "openstarry-rule-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Runs a tool of this repository in the temporary folder, as if no test ran around it. */
function run(tool: string, args: readonly string[]): Promise<{ code: number; output: string }> {
  const inherited = Object.entries(process.env).filter(([name]) => !/^(VITEST|NODE_ENV$|TEST$)/.test(name));
  const options = { cwd: folder, env: Object.fromEntries(inherited), maxBuffer: 2 ** 26 };
  return new Promise((resolve) => {
    execFile(join(BIN, tool), args, options, (error, stdout, stderr) =>
      resolve({ code: error ? Number(error.code) : 0, output: stdout + stderr }),
    );
  });
}

function write(path: string, text: string) {
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  writeFileSync(join(folder, path), text);
}

/** What the repository's own check says to one file that imports these modules. */
async function check(file: string, modules: readonly string[]) {
  const imports = modules.map((module, index) => `import * as m${index} from "${module}";`);
  write(file, `${imports.join("\n")}\n`);
  const script = join(ROOT, "test/checks/dependency-rule.mjs");
  return new Promise<{ code: number; output: string }>((resolve) => {
    execFile(process.execPath, [script, folder], (error, stdout, stderr) =>
      resolve({ code: error ? Number(error.code) : 0, output: stdout + stderr }),
    );
  });
}

describe("the dependency rule refuses", () => {
  const kernel = "The kernel imports nothing from plugins, bin or test.";
  const face = "A plugin imports the kernel through its public face, core/index.js";
  const stranger =
    "A plugin never imports another plugin's folder: they meet at slots, hooks and operations.";
  const command = "bin imports the list of built-in plugins and the API client, no plugin.";
  const cases: [string, string, string, string][] = [
    ["the kernel a plugin", "core/kernel.ts", "../plugins/tokens/index.js", kernel],
    ["a contract a plugin", "core/contracts/journal.ts", "../../plugins/tokens/index.js", kernel],
    ["the kernel the command", "core/kernel.ts", "../bin/home.js", kernel],
    ["the kernel a test helper", "core/kernel.ts", "../test/helpers/wait-for.js", kernel],
    ["the kernel processes", "core/kernel.ts", "node:child_process", "The kernel starts no processes"],
    ["the kernel HTTP", "core/kernel.ts", "node:http", "The kernel speaks no network protocol."],
    ["the kernel sockets", "core/kernel.ts", "node:net", "The kernel speaks no network protocol."],
    ["the kernel a sampler", "core/kernel.ts", "pidusage", "The kernel measures nothing."],
    ["a plugin another one's folder", "plugins/tokens/index.ts", "../http-api/gate.js", stranger],
    ["a plugin another one's face", "plugins/tokens/index.ts", "../http-api/index.js", stranger],
    ["a plugin's inner folder another plugin", "plugins/tokens/a/b.ts", "../../http-api/gate.js", stranger],
    ["a plugin's inner folder the kernel", "plugins/tokens/a/b.ts", "../../../core/kernel.js", face],
    ["a plugin the kernel's inside", "plugins/tokens/index.ts", "../../core/kernel.js", face],
    ["a plugin a contract's file", "plugins/tokens/index.ts", "../../core/contracts/agent.js", face],
    ["a plugin the command", "plugins/tokens/index.ts", "../../bin/home.js", "from bin or test."],
    ["the command a plugin", "bin/daemon/daemon.ts", "../../plugins/http-api/index.js", command],
    ["a command a plugin", "bin/commands/start.ts", "../../plugins/tokens/access.js", command],
    [
      "a contract the host",
      "core/contracts/journal.ts",
      "../host/slots.js",
      "core/contracts may import only",
    ],
    ["the host the agents", "core/host/hooks.ts", "../agents/table.js", "core/host may import only"],
    [
      "the agents the config",
      "core/agents/table.ts",
      "../config/load-config.js",
      "core/agents may import only",
    ],
    [
      "the command a test helper",
      "bin/daemon/daemon.ts",
      "../../test/helpers/wait-for.js",
      "bin imports nothing from test.",
    ],
  ];
  test.each(cases)("%s", async (_, file, module, message) => {
    const { code, output } = await check(file, [module]);
    expect(output).toContain(message);
    expect(code).toBe(1);
  });
});

describe("the dependency rule allows", () => {
  const cases: [string, string[]][] = [
    ["core/kernel.ts", ["./host/hooks.js", "./contracts/agent.js", "node:path", "tapable"]],
    ["core/contracts/agent.ts", ["./slot.js"]],
    ["core/host/slots.ts", ["../contracts/slot.js", "../lib/nearest.js", "./hooks.js"]],
    [
      "plugins/bus-mqtt/daemon/remote-bus.ts",
      ["../ipc/frames.js", "../../kit/topics.js", "../../../core/index.js"],
    ],
    ["plugins/tokens/index.ts", ["../../core/index.js", "../kit/topics.js", "./access.js", "node:net"]],
    ["bin/commands/start.ts", ["../../core/index.js", "../../plugins/builtins.js", "../daemon/home.js"]],
    [
      "bin/daemon/daemon.ts",
      [
        "../../plugins/agent-manager-tool/client/client.js",
        "../../core/config/load-config.js",
        "node:child_process",
      ],
    ],
  ];
  test.each(cases)("%s what it needs", async (file, modules) => {
    expect(await check(file, modules)).toMatchObject({ code: 0 });
  });
});

/** The files of a folder, with their code: without comments, which may speak of anything. */
function codeOf(part: string): [file: string, code: string][] {
  return readdirSync(join(ROOT, part), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => {
      const text = readFileSync(join(ROOT, part, file), "utf8");
      return [join(part, file), text.replace(/\/\*.*?\*\/|(?<=^|\s)\/\/[^\n]*/gs, "")];
    });
}

/** The packages and modules of Node that some code imports, statically or not. */
function packagesIn(code: string): string[] {
  const found = code.matchAll(/(?:\bfrom|\bimport|\brequire)\s*\(?\s*"([@\w][\w@./:-]*)"/g);
  return [...found].map(([, name = ""]) => /^(@[^/]+\/)?[^/]+/.exec(name)?.[0] ?? name);
}

describe("the kernel", () => {
  const kernel = codeOf("core");

  test("imports what reads and checks its config, hooks, and nothing that reaches further", () => {
    const files = ["node:fs", "node:module", "node:os", "node:path", "node:url"];
    const allowed = new Set([...files, "cosmiconfig", "jiti", "resolve.exports", "tapable", "yaml", "zod"]);
    const others = kernel.flatMap(([file, code]) =>
      packagesIn(code).flatMap((name) => (allowed.has(name) ? [] : [`${file}: ${name}`])),
    );
    expect(others).toEqual([]);
    expect(new Set(kernel.flatMap(([, code]) => packagesIn(code)))).toContain("tapable");
  });

  test("has the time from its clock, and neither signals nor ends processes", () => {
    const own = /\b(process\.(exit|kill|abort)|set(Timeout|Interval|Immediate)|Date\.now|performance\.now)\(/;
    expect(kernel.flatMap(([file, code]) => (own.test(code) ? [file] : []))).toEqual(["core/lib/clock.ts"]);
  });
});

test("the rule reports a cycle of imports", async () => {
  write("core/lib/a.ts", 'import * as b from "./b.js";\n');
  expect(await check("core/lib/b.ts", ["./a.js"])).toMatchObject({
    code: 1,
    output: expect.stringMatching(/^import cycle: core\/lib\/\w\.ts → core\/lib\/\w\.ts$/m),
  });
});

test("nobody goes around the rule by the package's own name", () => {
  const all = ["core", "plugins"].flatMap(codeOf);
  expect(
    all.flatMap(([file, code]) => (packagesIn(code).includes("openstarry-daemon") ? [file] : [])),
  ).toEqual([]);
});

test("the kernel type-checks and passes its lifecycle tests where there is no plugin and no command", async () => {
  const parts = [
    "core",
    "test/contract",
    "test/helpers/fake-clock.ts",
    "test/helpers/wait-for.ts",
    "test/unit/core/kernel.test.ts",
    "tsconfig.json",
    "vitest.config.ts",
    "package.json",
  ];
  for (const part of parts) cpSync(join(ROOT, part), join(folder, part), { recursive: true });
  symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"));
  for (const absent of ["plugins", "bin", "dist"]) expect(existsSync(join(folder, absent))).toBe(false);

  expect(await run("tsc", ["-p", "tsconfig.json"])).toEqual({ code: 0, output: "" });

  const report = join(folder, "report.json");
  const { output } = await run("vitest", ["run", "--reporter=json", `--outputFile=${report}`]);
  expect(existsSync(report), output).toBe(true);
  const { success, numPassedTests, numTotalTests, testResults } = JSON.parse(readFileSync(report, "utf8"));
  expect({ success, files: testResults.length }, output).toEqual({ success: true, files: 1 });
  expect(numPassedTests).toBe(numTotalTests);
  expect(numPassedTests).toBeGreaterThan(20);
}, 120_000);
