import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { afterEach, describe, expect, test } from "vitest";
import { agentWhen, crash } from "../helpers/crash.js";
import { type DaemonOptions, startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { operatorOf } from "../helpers/operator.js";
import { processesOf, seeProcess } from "../helpers/processes.js";
import { readEvents, type SentEvent } from "../helpers/read-events.js";
import { noRedis } from "../helpers/redis-server.js";
import { canMount, mountSmallDisk, type SmallDisk } from "../helpers/small-disk.js";
import { expectTwins, type Kept } from "../helpers/twins.js";
import { waitFor } from "../helpers/wait-for.js";

const ID = "svc:state-redis";
const LANES = 6;
const KILLS = 4;

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

async function start(more: DaemonOptions = {}): Promise<TestDaemon> {
  const plugins = [["state-redis", { managed: true, eager: true }]];
  daemon = await startDaemon({ config: { plugins }, ...more });
  await usable(daemon);
  return daemon;
}

const usable = ({ client }: TestDaemon) =>
  waitFor(() => client.state.put("probe", "k", 1), { what: "the state store", timeoutMs: 20_000 });
const status = async (it: TestDaemon) => (await it.cli(["status"])).stdout;
/** Waits for a run of the server behind this one. */
const after = (it: TestDaemon, pid?: number) =>
  agentWhen(it, ID, (agent) => agent.state === "running" && agent.pid !== pid);

/** Every lane writes ever higher numbers to keys of its own, two at a time, until `over`. */
function writeOn(home: string, over: () => boolean) {
  const acknowledged = new Map<string, Kept>();
  let refused = 0;
  const lane = async (_: unknown, index: number) => {
    const operator = operatorOf(home);
    let newest = 0;
    for (let value = 0; !over(); value++) {
      const keys = [`${index}/${value % 20}`, `${index}/twin/${value % 20}`];
      const writes = keys.map((key) => ({ op: "put", key, value }));
      const { status: code, json } = await operator.post("/state/shared", { writes });
      if (code === 503) {
        expect(json).toMatchObject({ code: "state_unavailable" });
        refused++;
        await new Promise((resolve) => setTimeout(resolve, 20));
        continue;
      }
      expect(code).toBe(200);
      for (const { key, version } of json["items"] as { key: string; version: number }[]) {
        expect(version).toBeGreaterThan(newest);
        newest = version;
        acknowledged.set(key, { value, version });
      }
    }
  };
  const done = Promise.all(Array.from({ length: LANES }, lane));
  return { acknowledged, done, refused: () => refused };
}

async function read(home: string): Promise<Map<string, Kept>> {
  const { json } = await operatorOf(home).get("/state/shared?limit=1000");
  const items = json["items"] as ({ key: string } & Kept)[];
  return new Map(items.map(({ key, value, version }) => [key, { value, version }]));
}

describe.skipIf(noRedis)("kill -9", () => {
  test("of the server amid writes, again and again: nothing acknowledged is lost, and watches miss nothing", async () => {
    const it = await start();
    let over = false;
    const { acknowledged, done, refused } = writeOn(it.home, () => over);
    const last = () => Math.max(0, ...[...acknowledged.values()].map(({ version }) => version));
    const seen = new Map<string, Kept>();
    const wrong: unknown[] = [];
    let end = Number.POSITIVE_INFINITY;
    const watch = async () => {
      const { port } = JSON.parse(readFileSync(join(it.home, "daemon.json"), "utf8"));
      const token = readFileSync(join(it.home, "token"), "utf8").trim();
      for (let lastEventId = 0; lastEventId < end; ) {
        let heard = 0;
        const until = (events: readonly SentEvent[]) => {
          for (const { id, event, data } of events.slice(heard)) {
            heard++;
            // Told before a stream is ended for what it says.
            if (event === "error") continue;
            if (event !== "put" || id <= lastEventId) wrong.push({ id, event, lastEventId });
            const { key, value, version } = data as { key: string } & Kept;
            seen.set(key, { value, version });
            lastEventId = id;
          }
          return lastEventId >= end;
        };
        // A stream that ends, or cannot be had, is asked for again where it ended.
        await readEvents({ at: port, token, path: "/state-watch/shared", lastEventId, until }).catch(
          () => {},
        );
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    };
    const watched = watch();

    for (let kill = 0; kill < KILLS; kill++) {
      const before = last();
      await waitFor(() => last() > before + 200, { what: "writes", timeoutMs: 20_000 });
      const { pid } = await after(it);
      process.kill(pid as number, "SIGKILL");
      await after(it, pid);
    }
    await usable(it);
    over = true;
    await done;
    // The last of all changes, after everything that was under way.
    end = (await it.client.state.put("shared", "end/twin", 0)).version;
    await watched;
    const found = await read(it.home);
    expectTwins(acknowledged, found);
    expect(wrong).toEqual([]);
    expect(seen).toEqual(found);
    expect(refused()).toBeGreaterThan(0);
    const events = (await it.cli(["events", "-n", "1000"])).stdout;
    expect(events.match(/plugin\.degraded .*state-redis/g)).toHaveLength(KILLS);
    expect(await status(it)).not.toContain("problem");
  }, 120_000);

  test("of the daemon amid writes: the server runs on, is adopted, and has everything", async () => {
    const it = await start();
    const { pid } = await after(it);
    const { acknowledged, done } = writeOn(it.home, () => false);
    const ended = expect(done).rejects.toMatchObject({ code: expect.stringMatching(/ECONN|EPIPE/) });
    await waitFor(() => acknowledged.size >= LANES * 40, { what: "writes", timeoutMs: 20_000 });
    await crash(it);
    await ended;
    expect(seeProcess(pid as number)?.command).toContain("redis-server");
    await it.start();
    // It was connected to at once.
    expectTwins(acknowledged, await read(it.home));
    expect((await it.client.agents.get(ID)).pid).toBe(pid);
  }, 60_000);

  test("of both at the same time", async () => {
    const it = await start();
    const { pid } = await after(it);
    const { acknowledged, done } = writeOn(it.home, () => false);
    const ended = expect(done).rejects.toBeDefined();
    await waitFor(() => acknowledged.size >= LANES * 40, { what: "writes", timeoutMs: 20_000 });
    process.kill(pid as number, "SIGKILL");
    await crash(it);
    await ended;
    await it.start();
    await usable(it);
    expectTwins(acknowledged, await read(it.home));
    expect(await after(it, pid)).toMatchObject({ state: "running" });
  }, 60_000);
});

test.skipIf(noRedis)(
  "a server that hangs is told, and used again when it goes on",
  async () => {
    const it = await start();
    const { pid } = await after(it);
    process.kill(pid as number, "SIGSTOP");
    try {
      await expect(it.client.state.get("shared", "k")).rejects.toMatchObject({ code: "state_unavailable" });
      expect(await status(it)).toMatch(/problem: .*state-redis/);
    } finally {
      process.kill(pid as number, "SIGCONT");
    }
    await usable(it);
    expect((await after(it)).pid).toBe(pid);
  },
  60_000,
);

if (!canMount) console.log("skipped: a full disk needs the right to mount a small one");
describe.skipIf(noRedis || !canMount)("a full disk", () => {
  let folder: string;
  let disk: SmallDisk;
  afterEach(async () => {
    disk.free();
    await daemon?.stop();
    for (const { pid } of processesOf(join(folder, "home"))) process.kill(pid, "SIGKILL");
    daemon = undefined;
    disk.remove();
    rmSync(folder, { recursive: true, force: true });
  });

  test("refuses writes clearly, reading goes on, and with space writing does, by itself", async () => {
    folder = mkdtempSync(join(tmpdir(), "openstarry-redis-disk-"));
    disk = mountSmallDisk(join(folder, "home"), 65_536);
    const it = await start({ home: join(folder, "home") });
    const { pid } = await after(it);
    const { version } = await it.client.state.put("shared", "k", "kept");
    disk.fill();
    await expect(it.client.state.put("shared", "k", "lost")).rejects.toMatchObject({
      code: "state_unavailable",
      message: expect.stringContaining("no room on the disk"),
      hint: expect.stringContaining("free disk space"),
    });
    expect(await it.client.state.get("shared", "k")).toMatchObject({ value: "kept", version });
    await waitFor(async () => /problem: .*no room on the disk/.test(await status(it)), {
      what: "the problem",
    });
    disk.free();
    await usable(it);
    expect((await it.client.state.put("shared", "k", "new")).version).toBe(version + 1);
    await waitFor(async () => !(await status(it)).includes("no room"), { what: "the end of the problem" });
    expect(await after(it)).toMatchObject({ pid, restarts: 0 });
  }, 60_000);

  test("that the server meets all the same ends it; nothing acknowledged is lost", async () => {
    folder = mkdtempSync(join(tmpdir(), "openstarry-redis-disk-"));
    disk = mountSmallDisk(join(folder, "home"), 65_536);
    const it = await start({ home: join(folder, "home") });
    let over = false;
    const { acknowledged, done } = writeOn(it.home, () => over);
    await waitFor(() => acknowledged.size >= LANES * 40, { what: "writes", timeoutMs: 20_000 });
    const { pid } = await after(it);
    const folderOf = join(it.home, "state-redis");
    const password = readFileSync(join(folderOf, "password"), "utf8").trim();
    const stranger = new Redis({ path: join(folderOf, "redis.sock"), password, maxRetriesPerRequest: 0 });
    stranger.on("error", () => {});
    disk.fill();
    // One that does not look first whether there is room.
    await expect(stranger.set("stranger", "x".repeat(2 ** 20))).rejects.toThrow();
    stranger.disconnect();
    await waitFor(() => seeProcess(pid as number) === undefined, { what: "the end of the server" });
    disk.free();
    await usable(it);
    over = true;
    await done;
    expect((await after(it)).pid).not.toBe(pid);
    expectTwins(acknowledged, await read(it.home));
  }, 60_000);
});
