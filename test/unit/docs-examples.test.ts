import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fences, ROOT, readPage, withoutFences } from "../docs/pages.js";

const run = promisify(execFile);

/** The package's own names, as package.json exports them, in this repository's sources. */
const SOURCES = {
  "openstarry-daemon": join(ROOT, "core/index.ts"),
  "openstarry-daemon/plugins": join(ROOT, "plugins"),
  "openstarry-daemon/testing": join(ROOT, "test/contract/index.ts"),
};

const tutorial = fences(readPage("docs/writing-a-plugin.md").text, "ts");
/** Those that are quoted from a file stand side by side here, as they do there. */
const named = tutorial.flatMap(({ name, content }) =>
  name === undefined ? [] : [{ name: basename(name), content }],
);
const taps = fences(readPage("docs/hooks.md").text, "ts").flatMap(({ name, content }) =>
  name ? [] : [content],
);

/** The examples of hooks.md as one plugin, and a test that sets all of them to work. */
const HOOK_EXAMPLES = {
  "hook-examples.ts": `import { appendFile } from "node:fs/promises";
import { join } from "node:path";
import { definePlugin, SpawnDeferred, SpawnVetoed, type StandardSchema } from "openstarry-daemon";
const options: StandardSchema<object> = {
  "~standard": { version: 1, vendor: "test", validate: (value) => ({ value: Object(value) }) },
};
export default definePlugin({
  name: "hook-examples",
  apiVersion: 1,
  options,
  setup(ctx) {
${taps.join("\n")}
  },
});
`,
  "hook-examples.test.ts": `import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { defineOperation, definePlugin, operation, type StandardSchema } from "openstarry-daemon";
import { createTestKernel } from "openstarry-daemon/testing";
import examples from "./hook-examples.js";
const me = { actor: "operator", reason: "a test" };
const anything: StandardSchema<object> = {
  "~standard": { version: 1, vendor: "test", validate: (value) => ({ value: Object(value) }) },
};
/** What the tap on onRequest is about. */
const deletion = definePlugin({
  name: "deletion",
  apiVersion: 1,
  provides: [operation],
  options: anything,
  setup(ctx) {
    const name = "agents.delete";
    const summary = "Deletes.";
    const handler = async () => "deleted";
    ctx.provide(operation, defineOperation({ name, summary, scope: "any", input: anything, handler }));
  },
});
test("the examples of hooks.md do what they say", async () => {
  const dataDir = import.meta.dirname;
  const kernel = createTestKernel({
    authorizer: { authorize: () => ({ verdict: "allow" }) },
    dataDir,
    plugins: [examples(), deletion()],
    templates: { Plain: { restart: { policy: "never" } }, Shell: { command: "/bin/sh" } },
  });
  await kernel.start();
  await kernel.control.create({ agent_id: "shell", template_id: "Shell" }, me);
  assert.match((await kernel.agents.wait("shell", "ended")).reason ?? "", /may not be shells/);
  await kernel.control.create({ agent_id: "a", template_id: "Plain" }, me);
  const { run_id = "" } = await kernel.agents.wait("a", "ready");
  assert.equal(kernel.spawner.runs.length, 1);
  await kernel.control.create({ agent_id: "b", template_id: "Plain" }, me);
  const second = await kernel.agents.wait("b", "launched");
  assert.deepEqual([second.state, second.reason], ["pending", "another agent runs"]);
  const agent = { kind: "agent", id: "agent:a", agentId: "a", runId: run_id } as const;
  await assert.rejects(kernel.dispatch("agents.delete", {}, agent), /agents may not delete agents here/);
  const operator = { kind: "operator", id: "operator" } as const;
  assert.equal(await kernel.dispatch("agents.delete", {}, operator), "deleted");
  await kernel.reports.health("a", run_id, "unhealthy", "a test");
  await kernel.agents.wait("a", "ended");
  await kernel.stop({ agents: "stop", reason: "the test is over" });
  assert.match(readFileSync(join(dataDir, "failures.txt"), "utf8"), new RegExp(run_id));
  const said = kernel.logged.map(({ message }) => message);
  for (const words of ["a run ended", "started", "ready", "an agent is unhealthy", "stopping"]) {
    assert.ok(said.includes(words), words);
  }
  assert.deepEqual(kernel.plugins().filter(({ problem }) => problem !== undefined), []);
});
`,
};

let folder = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "openstarry-docs-"));
  symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"));
  const write = (name: string, content: string) => writeFileSync(join(folder, name), content);
  write("package.json", '{ "type": "module" }');
  for (const { name, content } of named) write(name, content);
  for (const [name, content] of Object.entries(HOOK_EXAMPLES)) write(name, content);
  // Those without a name are configs.
  tutorial.forEach(({ name, content }, index) => {
    if (name === undefined) write(`config-${index}.ts`, content);
  });
  write("config.ts", fences(readPage("docs/config.md").text, "ts")[0]?.content ?? "");
  const paths = {
    "openstarry-daemon": [SOURCES["openstarry-daemon"]],
    "openstarry-daemon/testing": [SOURCES["openstarry-daemon/testing"]],
    "openstarry-daemon/plugins/*": [`${SOURCES["openstarry-daemon/plugins"]}/*/index.ts`],
  };
  const options = { rootDir: "/", noEmit: true, typeRoots: [join(ROOT, "node_modules/@types")], paths };
  const include = ["*.ts", join(ROOT, "core/config/untyped.d.ts")];
  write(
    "tsconfig.json",
    JSON.stringify({ extends: join(ROOT, "tsconfig.json"), compilerOptions: options, include, exclude: [] }),
  );
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the code in docs/", () => {
  it("is type checked", async () => {
    await expect(run(join(ROOT, "node_modules/.bin/tsc"), ["-p", folder])).resolves.toMatchObject({
      stdout: "",
    });
  });

  const tests = [...named.map(({ name }) => name), "hook-examples.test.ts"].filter((name) =>
    name.endsWith(".test.ts"),
  );

  it.each(tests)("%s passes", async (name) => {
    const jiti = join(ROOT, "node_modules/jiti/lib/jiti-cli.mjs");
    const env = { ...process.env, JITI_ALIAS: JSON.stringify(SOURCES), JITI_FS_CACHE: "false" };
    // Inside a test runner node:test would report to that one.
    const { NODE_TEST_CONTEXT: _, ...plain } = env as NodeJS.ProcessEnv;
    const { stdout } = await run(process.execPath, [jiti, name], { cwd: folder, env: plain });
    expect(stdout).toMatch(/^# pass 1$/m);
    expect(stdout).toMatch(/^# fail 0$/m);
  });

  it("has a test for every plugin of the tutorial, whose words say that they have 20 and 30 lines", () => {
    const [first, ...others] = named.filter(({ name }) => !name.endsWith(".test.ts"));
    expect(others.length).toBeGreaterThan(0);
    for (const { name } of [first, ...others].flatMap((it) => it ?? [])) {
      expect(tests).toContain(name.replace(".ts", ".test.ts"));
    }
    const words = withoutFences(readPage("docs/writing-a-plugin.md").text);
    const lines = (content = "") => content.trimEnd().split("\n").length;
    expect(words).toContain("## One in 20 lines");
    expect(lines(first?.content)).toBeLessThanOrEqual(20);
    expect(words).toContain("## Write a policy in 30 lines");
    expect(lines(others.find(({ name }) => name === "index.ts")?.content)).toBeLessThanOrEqual(30);
  });
});
