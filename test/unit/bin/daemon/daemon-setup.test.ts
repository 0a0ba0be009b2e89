import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { loadSetup, pluginChanges } from "../../../../bin/daemon/daemon-setup.js";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "openstarry-setup-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function write(config: unknown): string {
  const file = join(dir, "openstarry.config.json");
  writeFileSync(file, JSON.stringify(config));
  return file;
}

const load = (port?: number) => loadSetup({ cwd: dir, ...(port === undefined ? {} : { port }) });
const optionsOf = (setup: Awaited<ReturnType<typeof loadSetup>>, name: string) =>
  setup.plugins.find(({ definition }) => definition.name === name)?.options;

describe("loadSetup", () => {
  test("reads the config of the folder and hands template folders to the plugin that reads them", async () => {
    const path = write({ templates: ["./templates"] });
    const setup = await load();
    expect(setup.path).toBe(path);
    expect(optionsOf(setup, "template-source-file")).toEqual({ folders: [join(dir, "templates")] });
  });

  test("overrides the config's port by --port and keeps its other options", async () => {
    write({ plugins: [["http-api", { port: 1_234, socket: false }]] });
    expect(optionsOf(await load(), "http-api")).toEqual({ port: 1_234, socket: false });
    expect(optionsOf(await load(0), "http-api")).toEqual({ port: 0, socket: false });
  });

  test("refuses --port if the config disables the API", async () => {
    write({ plugins: [["http-api", false]] });
    await expect(load(0)).rejects.toMatchObject({ code: "input_invalid" });
  });

  test("rejects with the errors of the config and of its plugins", async () => {
    write({ agent: [] });
    await expect(load()).rejects.toMatchObject({
      code: "config_invalid",
      message: expect.stringContaining("agent"),
    });
    write({ plugins: ["htp-api"] });
    await expect(load()).rejects.toMatchObject({
      code: "plugin_not_found",
      hint: 'did you mean "http-api"?',
    });
  });
});

test("changed plugins are listed in words, and an unchanged config lists none", async () => {
  write({});
  const before = await load();
  expect(pluginChanges(before.plugins, (await load()).plugins)).toEqual([]);
  write({
    plugins: [
      ["http-api", { port: 7_000 }],
      ["agent-manager-tool", false],
    ],
  });
  const changes = pluginChanges(before.plugins, (await load()).plugins);
  expect(changes).toEqual([
    "plugin agent-manager-tool was removed",
    "the options of plugin http-api changed",
  ]);
  expect(pluginChanges((await load()).plugins, before.plugins)).toContain(
    "plugin agent-manager-tool was added",
  );
});
