import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Client, createClient } from "../../plugins/agent-manager-tool/client/client.js";
import {
  type InstalledDaemon,
  installedDaemon,
  mustRun,
  npmInstall,
  ROOT,
  runProgram,
} from "../helpers/package.js";
import { environOf } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

/**
 * The last commit before core/ and plugins/ were given their rooms. Its journal, its state store and a config that
 * names its plugins are what users of 0.1 have on their disks.
 */
const BEFORE = "d27a5dfb777f2a9eadb97e322bc567fc9a62000f";

let root: string;
let folder: string;
let missing: string | undefined;
let before: InstalledDaemon;
let after: InstalledDaemon;

/** Builds the sources of the commit in a folder of their own, with the packages that they ask for. */
async function buildBefore(target: string): Promise<string | undefined> {
  mkdirSync(target);
  const known = await runProgram("git", ["cat-file", "-e", `${BEFORE}^{commit}`], { cwd: ROOT });
  if (known.code !== 0) {
    const reason = `this checkout has no commit ${BEFORE.slice(0, 7)} (a shallow clone, or a packed copy)`;
    if (process.env["CI_REQUIRE_SERVICES"] === "1") throw new Error(reason);
    console.warn(`left out: ${reason}`);
    return reason;
  }
  const archive = join(root, "before.tar");
  await mustRun("git", ["archive", "--output", archive, BEFORE], { cwd: ROOT });
  await mustRun("tar", ["-xf", archive, "-C", target]);
  const unreachable = await npmInstall(target, []);
  if (unreachable === undefined) await mustRun("npm", ["run", "--silent", "build"], { cwd: target });
  return unreachable;
}

/** A client that speaks as an agent, with the token of its run. */
async function as(agentId: string): Promise<Client> {
  const { pid } = await after.client.agents.get(agentId);
  const { OPENSTARRY_TOKEN_FILE: tokenFile } = environOf(pid ?? 0);
  if (tokenFile === undefined) throw new Error(`${agentId} has no token file`);
  return createClient({ home: after.home, tokenFile, agentId });
}

const TEMPLATES = {
  Sleeper: { command: "sleep", args: ["100000"] },
  Parent: { command: "sleep", args: ["100000"], children: { max: 2, depth: 2 }, logs: { keep: 2 } },
  Spends: { command: "sleep", args: ["100000"], budget: { tokens_max: 1_000 }, labels: { team: "a" } },
  Limited: {
    command: "sleep",
    args: ["100000"],
    resources: { memory_max: "256MiB", run_time_max: "1h", on_exceed: "stop" },
    readiness: { type: "log", pattern: "ready", timeout: "5m" },
    stop: { grace: "2s" },
  },
  Fails: {
    command: "sh",
    args: ["-c", "exit 3"],
    restart: { policy: "on-failure", backoff: { min: "1h", max: "2h" } },
  },
  Done: { command: "true" },
};

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "openstarry-before-"));
  folder = join(root, "project");
  mkdirSync(join(folder, "templates"), { recursive: true });
  for (const [template_id, rest] of Object.entries(TEMPLATES)) {
    writeFileSync(join(folder, "templates", `${template_id}.json`), JSON.stringify({ template_id, ...rest }));
  }
  writeFileSync(
    join(folder, "openstarry.config.json"),
    JSON.stringify({
      agents: [{ agent_id: "master", template_id: "Parent" }],
      templates: ["./templates"],
      plugins: [
        ["http-api", { port: 0 }],
        ["budget", { grace: "5s" }],
        ["restart-policy", { jitter: "none" }],
        ["resource-policy", {}],
        ["host-pressure", false],
        "tokens",
        "health-checker",
      ],
    }),
  );
  const tree = join(root, "tree");
  missing = await buildBefore(tree);
  const home = join(root, "home");
  const of = (path: string) => installedDaemon({ command: [process.execPath, path], cwd: folder, home });
  before = of(join(tree, "dist/bin/openstarry-daemon.js"));
  after = of(join(ROOT, "dist/bin/openstarry-daemon.js"));
}, 240_000);

afterAll(async () => {
  await after?.stop();
  rmSync(root, { recursive: true, force: true, maxRetries: 5 });
});

describe("a home of the version before", { timeout: 240_000 }, () => {
  test("is taken over after kill -9: agents, records, state and events are as they were", async ({
    skip,
  }) => {
    if (missing !== undefined) skip(missing);
    await before.start();
    const { agents, state } = before.client;
    await agents.wait("master", { for: "ready" });
    await (await as("master")).agents.create({ agent_id: "child", template_id: "Sleeper" });
    await agents.create({ agent_id: "spends", template_id: "Spends" });
    const usage = { input_tokens: 300, output_tokens: 100, cost_usd: 0.5 };
    await (await as("spends")).heartbeat({ status: "step 4", usage });
    await agents.create({ agent_id: "limited", template_id: "Limited" });
    await agents.create({ agent_id: "fails", template_id: "Fails" });
    await agents.create({ agent_id: "done", template_id: "Done" });
    await agents.create({ agent_id: "stopped", template_id: "Sleeper" });
    await agents.stop("stopped");
    await agents.wait("done", { for: "ended" });
    await waitFor(async () => (await agents.get("fails")).state === "backoff", { what: "the backoff" });
    await state.put("shared", "plan", { step: 4 });
    const listed = await agents.list();
    const { last_event_id: lastEvent = 0 } = await before.client.daemon.status();

    await before.kill();
    const started = await after.start();
    expect(started.stderr).not.toMatch(/problem|failed/i);

    const fields = (all: Awaited<ReturnType<typeof agents.list>>) =>
      all.items.map((agent) => {
        const { agent_id, state: now, desired, health, pid, parent_id, run_id, restarts, created_at } = agent;
        const { usage, spent, limits, status, labels, template_revision, last_exit } = agent;
        const numbers = { usage, spent, limits, status, labels, template_revision, last_exit };
        return { agent_id, now, desired, health, pid, parent_id, run_id, restarts, created_at, ...numbers };
      });
    const now = await after.client.agents.list();
    expect(fields(now)).toEqual(fields(listed));
    expect((await after.client.state.get("shared", "plan"))?.value).toEqual({ step: 4 });
    const earlier = await after.client.agents.events("spends");
    expect(earlier.items.map(({ type }) => type)).toEqual(
      expect.arrayContaining(["agent.created", "agent.heartbeat"]),
    );
    expect(((await after.client.daemon.status()).last_event_id ?? 0) > lastEvent).toBe(true);
  });

  test("has its agents stopped, started and ended by the new one, by their pinned templates", async ({
    skip,
  }) => {
    if (missing !== undefined) skip(missing);
    const { agents } = after.client;
    await agents.start("stopped");
    expect((await agents.wait("stopped", { for: "ready" })).state).toBe("running");
    const { run_id } = await agents.get("limited");
    const restarted = await agents.restart("limited");
    expect(restarted.run_id).not.toBe(run_id);
    expect(restarted.limits).toMatchObject({ run_time_max: { value: 3_600, on_exceed: "stop" } });
    const usage = { input_tokens: 900, output_tokens: 200, cost_usd: 0.6 };
    await (await as("spends")).heartbeat({ usage });
    const over = await agents.wait("spends", { for: "ended", timeoutMs: 60_000 });
    expect(over.last_exit).toMatchObject({ cause: "policy", success: false });
    expect((await agents.why("spends")).summary).toMatch(/budget/);
    await agents.remove("master");
    await agents.wait("child", { for: "ended" });
    expect((await agents.get("child")).last_exit?.cause).toBe("parent_exit");
  });

  test("has a config whose plugins are known by their former names, with a notice", async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const { code, stdout, stderr } = await after.cli("validate");
    expect([code, stderr]).toEqual([0, expect.stringMatching(/budget.*policy-budget/)]);
    expect(stdout).toMatch(/policy-budget/);
    expect(existsSync(join(after.home, "journal.db"))).toBe(true);
    expect(readFileSync(join(after.home, "daemon.log"), "utf8")).toMatch(/policy-budget/);
  });
});
