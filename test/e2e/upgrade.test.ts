import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { createClient } from "../../plugins/agent-manager-tool/client/client.js";
import { knock } from "../helpers/knock.js";
import {
  type InstalledDaemon,
  installedDaemon,
  mustRun,
  npmInstall,
  pack,
  ROOT,
} from "../helpers/package.js";
import { waitFor } from "../helpers/wait-for.js";

const { version: OLD } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { version: string };
const NEW = "90.0.0";
const SYNTAX_ERROR = "\nthis is no JavaScript;\n";

let root: string;
let folder: string;
let packed: Record<"old" | "new" | "broken", string>;
let missing: string | undefined;

/** The package of this repository with another version, packed again after a change to its files. */
async function repack(tgz: string, version: string, change: (folder: string) => void): Promise<string> {
  const copy = mkdtempSync(join(root, "source-"));
  await mustRun("tar", ["-xzf", tgz, "-C", copy]);
  const source = join(copy, "package");
  const manifest = JSON.parse(readFileSync(join(source, "package.json"), "utf8"));
  writeFileSync(join(source, "package.json"), JSON.stringify({ ...manifest, version }));
  change(source);
  return (await pack(root, source)).file;
}

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "openstarry-upgrade-"));
  const { file: old } = await pack(root);
  const broken = (source: string) => writeFileSync(join(source, "dist/core/kernel.js"), SYNTAX_ERROR);
  packed = {
    old,
    new: await repack(old, NEW, () => {}),
    broken: await repack(old, "90.0.1", broken),
  };
  folder = join(root, "project");
  mkdirSync(join(folder, "templates"), { recursive: true });
  writeFileSync(join(folder, "package.json"), '{ "private": true }');
  const sleeper = { template_id: "Sleeper", command: "sleep", args: ["100000"] };
  writeFileSync(join(folder, "templates/Sleeper.json"), JSON.stringify(sleeper));
  // In TypeScript, so that what reads it belongs to the files that are replaced.
  writeFileSync(
    join(folder, "openstarry.config.ts"),
    `import { defineConfig } from "openstarry-daemon";
export default defineConfig({
  agents: [{ agent_id: "master", template_id: "Sleeper" }],
  templates: ["./templates"],
});`,
  );
}, 180_000);
afterAll(() => rmSync(root, { recursive: true, force: true, maxRetries: 5 }));

describe("a new version over the files of a running daemon", { timeout: 180_000 }, () => {
  let daemon: InstalledDaemon;
  beforeEach(async () => {
    missing = await npmInstall(folder, [packed.old]);
    const command = [
      process.execPath,
      join(folder, "node_modules/openstarry-daemon/dist/bin/openstarry-daemon.js"),
    ];
    daemon = installedDaemon({ command, cwd: folder, home: mkdtempSync(join(root, "home-")) });
    if (missing === undefined) {
      await daemon.start();
      await daemon.client.agents.wait("master", { for: "ready" });
    }
  }, 180_000);
  afterEach(() => daemon.stop());

  const infoOf = () => JSON.parse(readFileSync(join(daemon.home, "daemon.json"), "utf8"));
  const versionOf = async () => (await daemon.client.daemon.status()).version;
  async function master() {
    const { pid, run_id, restarts } = await daemon.client.agents.get("master");
    return { pid, run_id, restarts };
  }

  test("restart takes it into service; no request, event or agent is lost", async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const before = await master();
    const { port, socket, pid } = infoOf();
    const knockers = [knock({ port }), knock({ socketPath: socket })];
    const seen: number[] = [];
    const following = new AbortController();
    const followed = (async () => {
      for await (const event of daemon.client.events({ lastEventId: 0, signal: following.signal })) {
        if (event.type === "gap") throw new Error("the stream has a gap");
        seen.push(event.id);
      }
    })().catch((error) => (following.signal.aborted ? undefined : error));
    let created = 0;
    const stop = new AbortController();
    // As agents have it: a kept connection may be closed just when it is used again.
    const { agents } = createClient({ home: daemon.home, retryForMs: 10_000 });
    const creating = (async () => {
      while (!stop.signal.aborted) {
        const agent_id = `short_${++created}`;
        await agents.create({ agent_id, command: ["true"] });
        await agents.wait(agent_id, { for: "ended" });
      }
    })().catch((error) => error);

    await npmInstall(folder, [packed.new]);
    expect(await versionOf()).toBe(OLD);
    const reloaded = JSON.parse((await daemon.cli("reload", "--json")).stdout);
    expect(reloaded.needs_restart).toEqual([`version ${NEW} is installed; this daemon runs ${OLD}`]);
    const during = created;
    expect(await daemon.cli("restart")).toMatchObject({ code: 0, stderr: "" });
    expect([await versionOf(), infoOf().version]).toEqual([NEW, NEW]);
    expect(infoOf().pid).not.toBe(pid);
    expect(await master()).toEqual({ ...before, restarts: 0 });
    await waitFor(() => created > during + 2, { what: "agents of the new version", timeoutMs: 20_000 });

    stop.abort();
    expect(await creating).toBeUndefined();
    await Promise.all(knockers.map((knocker) => knocker.stop()));
    for (const { outcomes } of knockers) expect(new Set(outcomes)).toEqual(new Set(["200"]));
    const { last_event_id: last } = await daemon.client.daemon.status();
    await waitFor(() => (seen.at(-1) ?? 0) >= (last ?? 0), { what: "the last event" });
    following.abort();
    expect(await followed).toBeUndefined();
    expect(seen).toEqual(seen.map((_, index) => (seen[0] ?? 0) + index));
    expect(seen[0]).toBe(1);
  });

  test("a version that cannot be loaded leaves the old daemon as it is, and it says why", async ({
    skip,
  }) => {
    if (missing !== undefined) skip(missing);
    const [before, pid] = [await master(), daemon.pid()];
    await npmInstall(folder, [packed.broken]);
    // The broken file is one that the command itself does without.
    const { code, stderr } = await daemon.cli("restart");
    expect([code, stderr]).toEqual([1, expect.stringMatching(/SyntaxError: .*dist\/core\/kernel\.js:\d/)]);
    expect([daemon.pid(), await versionOf()]).toEqual([pid, OLD]);
    expect(await master()).toEqual(before);
    const again = await daemon.client.agents.create({ agent_id: "later", template_id: "Sleeper" });
    expect(again).toMatchObject({ state: "running" });

    await npmInstall(folder, [packed.new]);
    expect(await daemon.cli("restart")).toMatchObject({ code: 0 });
    expect([await versionOf(), await master()]).toEqual([NEW, { ...before, restarts: 0 }]);
  });

  test("with none of its files left it goes on supervising", async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const [before, pid] = [await master(), daemon.pid()];
    const modules = join(folder, "node_modules");
    renameSync(modules, `${modules}.away`);
    try {
      const { client } = daemon;
      await client.agents.create({ agent_id: "fails", command: ["false"] });
      expect(await client.agents.wait("fails", { for: "ended" })).toMatchObject({ last_exit: { code: 1 } });
      expect(await client.agents.restart("master")).toMatchObject({ state: "running" });
      expect((await master()).pid).not.toBe(before.pid);
      expect((await client.agents.why("fails")).agent_id).toBe("fails");
      await expect(client.daemon.restart()).rejects.toThrow(/Cannot find module/);
      await expect(client.daemon.reload()).rejects.toThrow(/Cannot find module/);
      expect([daemon.pid(), await versionOf()]).toEqual([pid, OLD]);
    } finally {
      renameSync(`${modules}.away`, modules);
    }
    expect(await daemon.cli("restart")).toMatchObject({ code: 0 });
  });
});
