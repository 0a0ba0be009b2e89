import { copyFileSync, mkdirSync, readFileSync, renameSync, rmSync, truncateSync } from "node:fs";
import { join } from "node:path";
import Database from "libsql";
import { afterEach, beforeEach, expect, test } from "vitest";
import { fixtureAgent, printedPid } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { environOf, processesOf, processesOfAgent, seeProcess } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const Family = { template_id: "Family", ...fixtureAgent("family.sh") };

let daemon: TestDaemon;
beforeEach(async () => {
  const agents = [{ agent_id: "master", template_id: "Family" }];
  daemon = await startDaemon({ config: { agents }, templates: [Family] });
});
afterEach(async () => {
  const { home } = daemon;
  await daemon.stop();
  // What a daemon does not know how to end, it leaves.
  for (const { pid } of processesOf(home)) process.kill(pid, "SIGKILL");
});

const at = (name: string) => join(daemon.home, name);
const family = (id: string) =>
  Promise.all(["agent", "child", "grandchild"].map((word) => printedPid(daemon, id, word)));
const runsOf = (id: string) =>
  new Set(processesOfAgent(daemon.home, id).map(({ pid }) => environOf(pid)["OPENSTARRY_RUN_ID"]));

async function crash(): Promise<void> {
  process.kill(daemon.pid() as number, "SIGKILL");
  await waitFor(() => daemon.pid() === undefined, { what: "the lock to be free" });
}

test.each<[string, () => void]>([
  [
    "was moved away",
    () => {
      mkdirSync(at("aside"));
      for (const name of ["journal.db", "journal.db-wal", "journal.db-shm"])
        renameSync(at(name), join(at("aside"), name));
    },
  ],
  ["lost its log", () => rmSync(at("journal.db-wal"))],
  ["lost the end of its log", () => truncateSync(at("journal.db-wal"), 20_000)],
  [
    "was replaced by an older one",
    () => {
      for (const name of ["journal.db", "journal.db-wal"]) rmSync(at(name));
      copyFileSync(at("older.db"), at("journal.db"));
    },
  ],
])(
  "after the journal %s, agents that run are left alone, not doubled, and ended when that is asked for",
  async (_, lose) => {
    const early = new Database(at("journal.db"));
    early.exec(`VACUUM INTO '${at("older.db")}'`);
    early.close();
    await daemon.client.agents.create({ agent_id: "guest", template_id: "Family" });
    const before = { master: await family("master"), guest: await family("guest") };
    await crash();
    lose();

    const { stdout, stderr } = await daemon.start();
    expect(stdout).toContain("is ready");
    expect(stderr).toMatch(
      /problem: agent guest runs \(pid .*the journal does not know of it; it is left alone/,
    );
    for (const pid of [...before.master, ...before.guest]) expect(seeProcess(pid)?.pid).toBe(pid);
    expect([runsOf("master").size, runsOf("guest").size]).toEqual([1, 1]);
    await expect(
      daemon.client.agents.create({ agent_id: "guest", template_id: "Family" }),
    ).rejects.toMatchObject({ code: "agent_exists", hint: expect.stringContaining("DELETE /agents/guest") });
    // Everything else works.
    await daemon.client.agents.create({ agent_id: "other", template_id: "Family" });
    expect(await family("other")).toHaveLength(3);

    expect((await daemon.cli(["status"])).stdout).toContain("agent rm");
    expect((await daemon.cli(["agent", "status", "guest"])).stderr).toMatch(/quarantine/);
    const removed = await daemon.cli(["agent", "rm", "guest"]);
    expect([removed.code, removed.stdout]).toEqual([0, expect.stringContaining("removed")]);
    expect(processesOfAgent(daemon.home, "guest")).toEqual([]);
    expect(seeProcess(before.master[0] as number)).toBeDefined();
    expect((await daemon.cli(["status"])).stdout).not.toContain("agent guest");
    await daemon.client.agents.create({ agent_id: "guest", template_id: "Family" });
  },
);

test("the journal that was lost for a while is put back, and everything goes on as before", async () => {
  const guest = await daemon.client.agents.create({
    agent_id: "guest",
    template_id: "Family",
    env: { SECRET: "kept" },
  });
  const before = { master: await family("master"), guest: await family("guest") };
  await crash();
  const names = ["journal.db", "journal.db-wal", "journal.db-shm"];
  mkdirSync(at("aside"));
  for (const name of names) renameSync(at(name), join(at("aside"), name));
  await daemon.start();
  expect((await daemon.cli(["stop", "--keep-agents"])).code).toBe(0);
  for (const name of names) rmSync(at(name), { force: true });
  for (const name of names) renameSync(join(at("aside"), name), at(name));
  const { stderr } = await daemon.start();
  expect(stderr).toBe("");
  expect(await daemon.client.agents.get("guest")).toMatchObject({ pid: guest.pid, restarts: 0 });
  for (const pid of [...before.master, ...before.guest]) expect(seeProcess(pid)?.pid).toBe(pid);
  expect(JSON.parse(readFileSync(at("agents/guest/env.json"), "utf8"))).toEqual({ SECRET: "kept" });
});

test("a record that is no UTF-8 any more does not end the daemon, and neither does it the agent", async () => {
  const before = await family("master");
  await crash();
  const folded = new Database(at("journal.db"));
  folded.exec("UPDATE agents SET record = CAST(X'7b22ff' AS TEXT)");
  folded.close();
  const { stderr } = await daemon.start();
  expect(stderr).toMatch(/problem: record master could not be read/);
  expect(seeProcess(before[0] as number)).toBeDefined();
  expect(runsOf("master").size).toBe(1);
  expect(readFileSync(at("daemon.log"), "utf8")).not.toContain("panicked");
});

test("a journal that is removed while the daemon runs is written anew, and a crash loses nothing", async () => {
  const before = await family("master");
  for (const name of ["journal.db", "journal.db-wal", "journal.db-shm"]) rmSync(at(name));
  await daemon.client.agents.create({ agent_id: "guest", template_id: "Family" });
  await crash();
  const { stderr } = await daemon.start();
  expect(stderr).toBe("");
  expect(await daemon.client.agents.get("master")).toMatchObject({ pid: before[0], restarts: 0 });
  expect((await daemon.client.agents.get("guest")).state).toBe("running");
});
