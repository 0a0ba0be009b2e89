import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { identify } from "../../bin/daemon/process-identity.js";
import {
  exportedPaths,
  installedDaemon,
  mustRun,
  npmInstall,
  type PackedPackage,
  pack,
  ROOT,
  runProgram,
} from "../helpers/package.js";

const MAX_PACKED_BYTES = 700_000;

let root: string;
let packed: PackedPackage;

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "openstarry-package-"));
  packed = await pack(root);
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe("the package", () => {
  test("holds what runs, its types, docs and licence, and nothing else", () => {
    const wanted =
      /^(package\.json|README\.md|LICENSE|(CHANGELOG|UPGRADING|SECURITY)\.md|docs\/[\w-]+\.md|examples\/systemd\/openstarry-daemon\.service|dist\/(bin\/.+(?<!\.d)|(core|plugins|test\/contract)\/.+?)\.(js|d\.ts))$/;
    expect(packed.files.filter((file) => !wanted.test(file))).toEqual([]);
    expect(packed.files.filter((file) => /\.map$|tsbuildinfo|\.test\.|_?fixtures?\//.test(file))).toEqual([]);
    expect(packed.files).toEqual(expect.arrayContaining(["LICENSE", "README.md", "CHANGELOG.md"]));
  });

  test("is small", () => {
    expect(packed.size).toBeLessThan(MAX_PACKED_BYTES);
  });

  test("has every file that its package.json names", async () => {
    const { bin, license } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8"));
    const named = [...Object.values(exportedPaths(ROOT)).flat(), ...Object.values<string>(bin)];
    const missing = named.filter((path) => !packed.files.includes(path.replace(/^\.\//, "")));
    expect(missing).toEqual([]);
    expect(license).toBe("Apache-2.0");
    expect(await readFile(join(ROOT, "LICENSE"), "utf8")).toMatch(/^\s+Apache License\n\s+Version 2\.0/);
  });
});

describe("installed in an empty folder", () => {
  let folder: string;
  let missing: string | undefined;

  beforeAll(async () => {
    folder = join(root, "empty");
    mkdirSync(folder);
    // Without it npm would take a folder above that has one.
    await writeFile(join(folder, "package.json"), '{ "private": true }');
    missing = await npmInstall(folder, [packed.file]);
  }, 180_000);

  test("every export can be imported, and nothing else", async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const names = Object.keys(exportedPaths(ROOT)).filter((name) => !name.endsWith(".json"));
    const script = `
      const wrong = [];
      for (const name of ${JSON.stringify(names)}) {
        const exported = await import(name).catch((error) => wrong.push(name + ": " + error.message));
        if (name.includes("/plugins/") && typeof exported.default !== "function") wrong.push(name + ": no plugin");
      }
      await import("openstarry-daemon/dist/core/kernel.js").then(() => wrong.push("the kernel"), () => {});
      console.log(JSON.stringify(wrong));
    `;
    const args = ["--input-type=module", "-e", script];
    expect(JSON.parse(await mustRun(process.execPath, args, { cwd: folder }))).toEqual([]);
    expect(names.length).toBeGreaterThan(15);
  });

  test("the kit's index loads no database driver, client or native module", async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const script = `
      import { createRequire } from "node:module";
      const { cache } = createRequire(import.meta.url);
      const loaded = () => ["libsql", "ioredis", "koffi", "pg"].filter((name) =>
        Object.keys(cache).some((file) => file.includes("/node_modules/" + name + "/")));
      await import("openstarry-daemon/kit");
      const light = loaded();
      await import("openstarry-daemon/kit/redis");
      console.log(JSON.stringify([light, loaded()]));
    `;
    const args = ["--input-type=module", "-e", script];
    const [light, withRedis] = JSON.parse(await mustRun(process.execPath, args, { cwd: folder }));
    expect(light).toEqual([]);
    expect(withRedis).toContain("ioredis");
  });

  test("init, start, list and stop work there", async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const home = join(root, "empty-home");
    const daemon = installedDaemon({
      command: ["npx", "--no-install", "openstarry-daemon"],
      cwd: folder,
      home,
    });
    const { version } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8"));
    expect((await daemon.cli("--version")).stdout.trim()).toBe(version);
    try {
      const written = await daemon.cli("init");
      expect(written).toMatchObject({ code: 0 });
      expect(existsSync(join(folder, "templates/HelloAgent_v1.yaml"))).toBe(true);
      expect((await daemon.start()).stdout).toContain("openstarry-daemon is ready");
      const { items } = JSON.parse((await daemon.cli("list", "--json")).stdout);
      expect(items).toMatchObject([{ agent_id: "hello", state: "running" }]);
      expect(daemon.pid()).toBeDefined();
      const stopped = await daemon.cli("stop");
      expect([stopped.code, daemon.pid(), identify(items[0].pid)]).toEqual([0, undefined, undefined]);
    } finally {
      await daemon.stop();
    }
  });

  test("a package in CommonJS can use it", async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const script = `
      const { definePlugin, OpenStarryError } = require("openstarry-daemon");
      console.log(typeof definePlugin, new OpenStarryError("timeout", { detail: "late" }).code);
    `;
    await writeFile(join(folder, "uses.cjs"), script);
    const { code, stdout } = await runProgram(process.execPath, ["uses.cjs"], { cwd: folder });
    expect([code, stdout]).toEqual([0, "function timeout\n"]);
  });
});
