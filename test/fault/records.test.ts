import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import Database from "libsql";
import { afterEach, beforeEach, expect, test } from "vitest";
import { identify, type ProcessIdentity } from "../../plugins/spawner-process/tree/identity.js";
import { fixtureAgent, printedPid } from "../helpers/agents.js";
import { crash } from "../helpers/crash.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { environOf, processesOf, processesOfAgent, seeProcess } from "../helpers/processes.js";

const Family = { template_id: "Family", ...fixtureAgent("family.sh") };

let daemon: TestDaemon;
beforeEach(async () => {
  const agents = [{ agent_id: "master", template_id: "Family" }];
  daemon = await startDaemon({ config: { agents }, templates: [Family] });
  await daemon.client.agents.create({ agent_id: "guest", template_id: "Family" });
});
afterEach(async () => {
  const { home } = daemon;
  await daemon.stop();
  // What a daemon does not know how to end, it leaves.
  for (const { pid } of processesOf(home)) process.kill(pid, "SIGKILL");
});

/** Writes over an agent's record, with no daemon alive, as somebody does who mends it by hand. */
function damage(agentId: string, record: string): void {
  const database = new Database(join(daemon.home, "journal.db"));
  database.prepare("UPDATE agents SET record = ?, checksum = NULL WHERE agent_id = ?").run(record, agentId);
  database.close();
}

type Target = ProcessIdentity;

function recordOf(agentId: string) {
  const database = new Database(join(daemon.home, "journal.db"));
  const row = database.prepare("SELECT record FROM agents WHERE agent_id = ?").get(agentId) as {
    record: string;
  };
  database.close();
  const record = JSON.parse(row.record) as Record<string, unknown>;
  return { record, stored: record as { target: Record<string, unknown> } };
}

test.each([
  ["no JSON", "{"],
  ["no record", '{"agent":{"agent_id":"master"}}'],
])(
  "an agent whose record is %s runs on, and is neither ended nor started a second time",
  async (_, record) => {
    const family = async (id: string) =>
      Promise.all(["agent", "child", "grandchild"].map((word) => printedPid(daemon, id, word)));
    const before = { master: await family("master"), guest: await family("guest") };
    await crash(daemon);
    damage("master", record);
    const { stderr } = await daemon.start();
    expect(stderr).toMatch(/problem: record master could not be read/);
    // The others are none the worse.
    expect(await daemon.client.agents.get("guest")).toMatchObject({ pid: before.guest[0], restarts: 0 });
    for (const pid of [...before.master, ...before.guest]) expect(seeProcess(pid)?.pid).toBe(pid);
    const runs = new Set(
      processesOfAgent(daemon.home, "master").map(({ pid }) => environOf(pid)["OPENSTARRY_RUN_ID"]),
    );
    expect(runs.size).toBe(1);
    // Its id stays taken.
    const again = daemon.client.agents.create({ agent_id: "master", template_id: "Family" });
    await expect(again).rejects.toMatchObject({ code: "agent_exists" });
    expect((await daemon.cli(["status"])).stdout).toMatch(/record master could not be read/);
  },
);

test.each([
  ["another start time", (it: Target) => ({ ...it, start_ticks: it.start_ticks - 1 })],
  ["an earlier boot", (it: Target) => ({ ...it, boot_id: "00000000-0000-0000-0000-000000000000" })],
  ["a negative pid", (it: Target) => ({ ...it, pid: -it.pid })],
])("a record with %s and the pid of somebody else: neither boot nor stop touches that", async (_, forge) => {
  const script = "sleep 100000 & echo $!; wait";
  const stranger = spawn("sh", ["-c", script], { detached: true, stdio: ["ignore", "pipe", "ignore"] });
  const pid = stranger.pid as number;
  const [line] = await once(stranger.stdout, "data");
  const group = [pid, Number(line)];
  const ended = once(stranger, "exit");
  try {
    const before = (await daemon.client.agents.get("guest")).pid as number;
    await crash(daemon);
    const identity = identify(pid) as Target;
    const { record, stored } = recordOf("guest");
    expect(stored.target).toMatchObject({ pid: before });
    damage("guest", JSON.stringify({ ...record, target: { ...stored.target, ...forge(identity) } }));
    await daemon.start();
    const next = await daemon.client.agents.wait("guest", { for: "ready", timeoutMs: 15_000 });
    expect(next).toMatchObject({ last_exit: { kind: "lost", success: false } });
    // What was the agent's in truth is found by its marks, and is not left beside the new run.
    expect(seeProcess(before)).toBeUndefined();
    await daemon.client.agents.stop("guest");
    expect((await daemon.cli(["stop"])).code).toBe(0);
    expect(group.map((it) => seeProcess(it)?.pid)).toEqual(group);
  } finally {
    process.kill(-pid, "SIGKILL");
    await ended;
  }
});

test("a journal that is no database is left as it is, and nothing is started", async () => {
  const before = (await daemon.client.agents.get("guest")).pid as number;
  await crash(daemon);
  const file = join(daemon.home, "journal.db");
  const good = readFileSync(file);
  writeFileSync(file, "this is no database");
  const { code, stdout, stderr } = await daemon.cli(["start", "--config", daemon.config, "--port", "0"]);
  expect([code, stdout, stderr]).toEqual([1, "", expect.stringContaining(file)]);
  expect(readFileSync(file, "utf8")).toBe("this is no database");
  expect([seeProcess(before)?.pid, daemon.pid()]).toEqual([before, undefined]);
  writeFileSync(file, good);
});
