import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { type ConfigFormat, initProject } from "../../../bin/commands/init.js";
import { validateConfig } from "../../../bin/commands/validate.js";
import { loadConfig } from "../../../core/config/load-config.js";
import { builtins, renamedBuiltins } from "../../../plugins/builtins.js";
import { waitFor } from "../../helpers/wait-for.js";

const folders: string[] = [];

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "init-"));
  folders.push(folder);
  return folder;
}

const env = { HOME: "/nonexistent", XDG_CONFIG_HOME: "/nonexistent" };

describe("initProject", () => {
  it.each<ConfigFormat>(["ts", "yaml", "json"])(
    "writes a project with a .%s config that is valid",
    async (format) => {
      const folder = join(newFolder(), "new/project");
      const { files } = await initProject({ folder, format });
      expect(files).toEqual([
        `openstarry.config.${format}`,
        "templates/HelloAgent_v1.yaml",
        "agents/hello.mjs",
      ]);
      expect(statSync(join(folder, "agents/hello.mjs")).mode & 0o111).toBe(0o111);
      const report = await validateConfig({
        cwd: folder,
        env,
        builtins,
        renamed: renamedBuiltins,
        home: join(folder, "home"),
      });
      expect(report.problems).toEqual([]);
      expect(report).toMatchObject({ agents: ["hello"], templates: ["HelloAgent_v1"] });
    },
  );

  it("writes the same config in every format", async () => {
    const configs: unknown[] = [];
    for (const format of ["ts", "yaml", "json"] as const) {
      const folder = newFolder();
      await initProject({ folder, format });
      const { config } = await loadConfig({ cwd: folder, env });
      configs.push({ ...config, templates: config.templates.map((path) => path.replace(folder, "")) });
    }
    expect(configs[1]).toEqual(configs[0]);
    expect(configs[2]).toEqual(configs[0]);
  });

  it("overwrites a file only if forced", async () => {
    const folder = newFolder();
    writeFileSync(join(folder, "openstarry.config.yaml"), "agents: []\n");
    await expect(initProject({ folder, format: "yaml" })).rejects.toMatchObject({
      code: "input_invalid",
      message: `${folder} already contains openstarry.config.yaml; nothing was written`,
      hint: expect.stringContaining("--force"),
    });
    expect(readdirSync(folder)).toEqual(["openstarry.config.yaml"]);
    await initProject({ folder, format: "yaml", force: true });
    expect(readFileSync(join(folder, "openstarry.config.yaml"), "utf8")).toContain("HelloAgent_v1");
  });

  it("never writes a second config into a folder", async () => {
    const folder = newFolder();
    writeFileSync(join(folder, ".openstarryrc"), "{}");
    for (const force of [false, true]) {
      await expect(initProject({ folder, format: "ts", force })).rejects.toMatchObject({
        message: expect.stringContaining("already contains a config: .openstarryrc"),
      });
    }
    expect(readdirSync(folder)).toEqual([".openstarryrc"]);
  });

  it("writes an agent that greets, and that leaves a result when it is stopped", async () => {
    const folder = newFolder();
    await initProject({ folder, format: "json" });
    writeFileSync(join(folder, "params.json"), JSON.stringify({ name: "tests", every_s: 0.1 }));
    const agent = spawn(process.execPath, ["agents/hello.mjs", "--every", "0.1"], {
      cwd: folder,
      env: {
        OPENSTARRY_AGENT_ID: "hello",
        OPENSTARRY_PARAMS_FILE: join(folder, "params.json"),
        OPENSTARRY_RESULT_FILE: join(folder, "result"),
      },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let output = "";
    agent.stdout.on("data", (data) => {
      output += data;
    });
    const exit = new Promise((resolve) => agent.on("exit", resolve));
    await waitFor(() => output.split("\n").length > 3, { what: "three greetings", diagnose: () => output });
    agent.kill("SIGTERM");
    expect(await exit).toBe(0);
    expect(output).toMatch(/^Hello, tests! This is hello, process \d+, greeting 1\.\n/);
    const { greetings } = JSON.parse(readFileSync(join(folder, "result"), "utf8"));
    expect(greetings).toBeGreaterThanOrEqual(3);
  });
});
