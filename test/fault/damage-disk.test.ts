import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "libsql";
import { afterEach, beforeEach, expect, test } from "vitest";
import { fixtureAgent } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { processesOf, processesOfAgent, seeProcess } from "../helpers/processes.js";
import { canMount, mountSmallDisk, type SmallDisk } from "../helpers/small-disk.js";
import { waitFor } from "../helpers/wait-for.js";

if (!canMount) console.log("skipped: a full disk needs the right to mount a small one");
const onSmallDisk = test.runIf(canMount);

const Sleeper = { template_id: "Sleeper", ...fixtureAgent("sleeper.sh") };
const restart = { policy: "always", max_restarts: 3, backoff: { min: "20ms", max: "20ms" } };
const Phoenix = { template_id: "Phoenix", ...fixtureAgent("sleeper.sh"), restart };
const Loud = { template_id: "Loud", command: "sh", args: ["-c", "while :; do echo full; sleep 0.01; done"] };

let folder: string;
let disk: SmallDisk;
let daemon: TestDaemon;
beforeEach(async () => {
  if (!canMount) return;
  folder = mkdtempSync(join(tmpdir(), "openstarry-disk-"));
  disk = mountSmallDisk(join(folder, "home"), 3_072);
  daemon = await startDaemon({ home: join(folder, "home"), templates: [Sleeper, Phoenix, Loud] });
});
afterEach(async () => {
  if (!canMount) return;
  disk.free();
  await daemon.stop();
  for (const { pid } of processesOf(daemon.home)) process.kill(pid, "SIGKILL");
  disk.remove();
  rmSync(folder, { recursive: true, force: true });
});

const create = (agent_id: string, template_id = "Sleeper") =>
  daemon.client.agents.create({ agent_id, template_id });
const state = async (id: string) => (await daemon.client.agents.get(id)).state;
/** What was begun and not finished: every file of the home is whole. */
const halves = () =>
  readdirSync(daemon.home, { recursive: true, encoding: "utf8" }).filter(
    (name) =>
      /\.tmp$|\.[0-9a-f]{12}$|\.new$/.test(name) ||
      (/\.json$|token|key$/.test(name) && statSync(join(daemon.home, name)).size === 0),
  );

onSmallDisk(
  "on a full disk ends are ends, starts wait, and all goes on by itself when there is space",
  async () => {
    await create("loud", "Loud");
    const phoenix = await create("phoenix", "Phoenix");
    const stopped = await create("stopped");
    const removed = await create("removed");
    disk.fill();

    await expect(create("new")).rejects.toMatchObject({
      code: "journal_unavailable",
      hint: expect.stringContaining("free disk space"),
    });
    await expect(
      daemon.client.templates.put("T", { template_id: "T", command: "sleep" } as never),
    ).rejects.toMatchObject({ code: "home_unusable", hint: expect.stringContaining("space") });
    const rotated = await daemon.cli(["token", "rotate"]);
    expect([rotated.code, rotated.stderr]).toEqual([1, expect.stringMatching(/disk is full\)\n.*free disk/)]);

    // Asked for, and told that it could not be written down; it is done all the same.
    await expect(daemon.client.agents.stop("stopped")).rejects.toMatchObject({ code: "journal_unavailable" });
    await expect(daemon.client.agents.remove("removed")).rejects.toMatchObject({
      code: "journal_unavailable",
    });
    process.kill(phoenix.pid as number, "SIGKILL");
    for (const { pid } of [phoenix, stopped, removed]) {
      await waitFor(() => seeProcess(pid as number) === undefined, { what: `the end of ${pid}` });
    }
    const waits = await waitFor(
      async () => {
        const agent = await daemon.client.agents.get("phoenix");
        return /disk is full|journal_unavailable/.test(agent.reason ?? "") && agent;
      },
      { what: "the start to wait", diagnose: () => daemon.client.agents.get("phoenix") },
    );
    expect(["pending", "backoff"]).toContain(waits.state);
    expect((await daemon.cli(["status"])).stdout).toMatch(/problem: .*disk is full/);
    expect(processesOfAgent(daemon.home, "loud").length).toBeGreaterThan(0);
    expect(halves()).toEqual([]);

    disk.free();
    await waitFor(async () => (await state("phoenix")) === "running", { what: "phoenix", timeoutMs: 15_000 });
    // One end, one restart: that there was no space is nobody's failure.
    expect((await daemon.client.agents.get("phoenix")).restarts).toBe(1);
    await waitFor(
      () =>
        daemon.client.agents.get("removed").then(
          () => false,
          () => true,
        ),
      {
        what: "the record to go",
        timeoutMs: 15_000,
      },
    );
    expect(await state("stopped")).toBe("stopped");
    await create("new");
    await waitFor(async () => !(await daemon.cli(["status"])).stdout.includes("problem"), {
      what: "the end of the problems",
      timeoutMs: 15_000,
    });
    expect(halves()).toEqual([]);
    // And it is written down, in time.
    const written = () => {
      const database = new Database(join(daemon.home, "journal.db"));
      const [row] = database.prepare("SELECT record FROM agents WHERE agent_id = 'stopped'").all();
      database.close();
      return JSON.parse((row as { record: string }).record).agent.state === "stopped";
    };
    await waitFor(written, { what: "the stop to be written", timeoutMs: 15_000 });
    process.kill(daemon.pid() as number, "SIGKILL");
    await waitFor(() => daemon.pid() === undefined, { what: "the lock to be free" });
    await daemon.start();
    expect(await state("stopped")).toBe("stopped");
    expect((await daemon.client.agents.get("phoenix")).restarts).toBe(1);
  },
);

onSmallDisk("a daemon is replaced, and stopped, on a full disk; the agents run on", async () => {
  const { pid } = await create("worker");
  const before = daemon.pid();
  disk.fill();
  expect((await daemon.cli(["restart"])).code).toBe(0);
  expect(daemon.pid()).not.toBe(before);
  expect(await daemon.client.agents.get("worker")).toMatchObject({ pid, restarts: 0 });
  expect((await daemon.cli(["stop", "--keep-agents"])).code).toBe(0);
  expect(seeProcess(pid as number)?.pid).toBe(pid);
  disk.free();
  await daemon.start();
  expect(await daemon.client.agents.get("worker")).toMatchObject({ pid, restarts: 0 });
  expect(JSON.parse(readFileSync(join(daemon.home, "daemon.json"), "utf8"))).toMatchObject({
    pid: daemon.pid(),
  });
});
