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
const WRITERS = 6;
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
/** Waits for a running server, other than the one with this pid. */
const after = (it: TestDaemon, pid?: number) =>
  agentWhen(it, ID, (agent) => agent.state === "running" && agent.pid !== pid);

/** Starts writers of rising numbers, each to keys of its own and two at a time, until `over` returns true. */
function writeOn(home: string, over: () => boolean) {
  const acknowledged = new Map<string, Kept>();
  let refused = 0;
  const writer = async (_: unknown, index: number) => {
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
  const done = Promise.all(Array.from({ length: WRITERS }, writer));
  return { acknowledged, done, refused: () => refused };
}

async function read(home: string): Promise<Map<string, Kept>> {
  const { json } = await operatorOf(home).get("/state/shared?limit=1000");
  const items = json["items"] as ({ key: string } & Kept)[];
  return new Map(items.map(({ key, value, version }) => [key, { value, version }]));
}

describe.skipIf(noRedis)("state-redis after kill -9", () => {
  test("no acknowledged write is lost by killing the server repeatedly under load, and watches miss nothing", async () => {
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
            // The last event of a stream that fails.
            if (event === "error") continue;
            if (event !== "put" || id <= lastEventId) wrong.push({ id, event, lastEventId });
            const { key, value, version } = data as { key: string } & Kept;
            seen.set(key, { value, version });
            lastEventId = id;
          }
          return lastEventId >= end;
        };
        // A stream that fails is opened again where it ended.
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
    // The last change, after all writes under way.
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

  test("the server survives kill -9 of the daemon under load and is adopted with all acknowledged writes", async () => {
    const it = await start();
    const { pid } = await after(it);
    const { acknowledged, done } = writeOn(it.home, () => false);
    const ended = expect(done).rejects.toMatchObject({ code: expect.stringMatching(/ECONN|EPIPE/) });
    await waitFor(() => acknowledged.size >= WRITERS * 40, { what: "writes", timeoutMs: 20_000 });
    await crash(it);
    await ended;
    expect(seeProcess(pid as number)?.command).toContain("redis-server");
    await it.start();
    // The daemon connects at once.
    expectTwins(acknowledged, await read(it.home));
    expect((await it.client.agents.get(ID)).pid).toBe(pid);
  }, 60_000);

  test("no acknowledged write is lost by killing server and daemon at the same time", async () => {
    const it = await start();
    const { pid } = await after(it);
    const { acknowledged, done } = writeOn(it.home, () => false);
    const ended = expect(done).rejects.toBeDefined();
    await waitFor(() => acknowledged.size >= WRITERS * 40, { what: "writes", timeoutMs: 20_000 });
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
  "state-redis reports a hanging server, and uses it again when it continues",
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

if (!canMount) console.log("skipped: the test of a full disk must be allowed to mount a small one");
describe.skipIf(noRedis || !canMount)("state-redis on a full disk", () => {
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

  test("writes are refused with a hint and reading works, until there is space again", async () => {
    folder = mkdtempSync(join(tmpdir(), "openstarry-redis-disk-"));
    disk = mountSmallDisk(join(folder, "home"), 65_536);
    const it = await start({ home: join(folder, "home") });
    const { pid } = await after(it);
    const { version } = await it.client.state.put("shared", "k", "kept");
    disk.fill();
    await expect(it.client.state.put("shared", "k", "lost")).rejects.toMatchObject({
      code: "state_unavailable",
      message: expect.stringContaining("not enough space on the disk"),
      hint: expect.stringContaining("free disk space"),
    });
    expect(await it.client.state.get("shared", "k")).toMatchObject({ value: "kept", version });
    await waitFor(async () => /problem: .*not enough space on the disk/.test(await status(it)), {
      what: "the problem",
    });
    disk.free();
    await usable(it);
    expect((await it.client.state.put("shared", "k", "new")).version).toBe(version + 1);
    await waitFor(async () => !(await status(it)).includes("not enough space"), {
      what: "the end of the problem",
    });
    expect(await after(it)).toMatchObject({ pid, restarts: 0 });
  }, 60_000);

  test("no acknowledged write is lost when another client fills the disk and the server exits", async () => {
    folder = mkdtempSync(join(tmpdir(), "openstarry-redis-disk-"));
    disk = mountSmallDisk(join(folder, "home"), 65_536);
    const it = await start({ home: join(folder, "home") });
    let over = false;
    const { acknowledged, done } = writeOn(it.home, () => over);
    await waitFor(() => acknowledged.size >= WRITERS * 40, { what: "writes", timeoutMs: 20_000 });
    const { pid } = await after(it);
    const folderOf = join(it.home, "state-redis");
    const password = readFileSync(join(folderOf, "password"), "utf8").trim();
    const otherClient = new Redis({ path: join(folderOf, "redis.sock"), password, maxRetriesPerRequest: 0 });
    otherClient.on("error", () => {});
    disk.fill();
    // This client does not check the free space first.
    await expect(otherClient.set("other", "x".repeat(2 ** 20))).rejects.toThrow();
    otherClient.disconnect();
    await waitFor(() => seeProcess(pid as number) === undefined, { what: "the end of the server" });
    disk.free();
    await usable(it);
    over = true;
    await done;
    expect((await after(it)).pid).not.toBe(pid);
    expectTwins(acknowledged, await read(it.home));
  }, 60_000);
});
