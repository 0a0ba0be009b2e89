import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { agentWhen, crash } from "../helpers/crash.js";
import { type DaemonOptions, startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { operatorOf } from "../helpers/operator.js";
import { processesOf } from "../helpers/processes.js";
import { noRedis } from "../helpers/redis-server.js";
import { canMount, mountSmallDisk, type SmallDisk } from "../helpers/small-disk.js";
import { waitFor } from "../helpers/wait-for.js";

const ID = "svc:bus-redis";
const PUBLISHERS = 4;

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

async function start(more: DaemonOptions = {}): Promise<TestDaemon> {
  const plugins = [["bus-redis", { managed: true, eager: true }]];
  daemon = await startDaemon({ config: { plugins }, ...more });
  await usable(daemon);
  return daemon;
}

const usable = ({ client }: TestDaemon) =>
  waitFor(() => client.bus.publish("probe", 1), { what: "the bus", timeoutMs: 20_000 });
const status = async (it: TestDaemon) => (await it.cli(["status"])).stdout;
const running = (it: TestDaemon, not?: number) =>
  agentWhen(it, ID, (agent) => agent.state === "running" && agent.pid !== not);

/** Starts publishers of rising numbers, which run until the daemon does not answer any more. */
function publishOn(home: string) {
  const acknowledged: [publisher: number, number: number][] = [];
  const publisher = async (_: unknown, index: number) => {
    const operator = operatorOf(home);
    for (let number = 0; ; number++) {
      const { status: code } = await operator.post("/bus/numbers", { payload: [index, number] });
      if (code === 200) acknowledged.push([index, number]);
      else expect(code).toBe(503);
    }
  };
  return { acknowledged, done: Promise.all(Array.from({ length: PUBLISHERS }, publisher)) };
}

/** Reads all messages that are kept now. */
async function read({ client }: TestDaemon): Promise<[number, number][]> {
  const { position } = await client.bus.publish("numbers", "end");
  const seen: [number, number][] = [];
  const options = { after: "0", signal: AbortSignal.timeout(20_000) };
  for await (const message of client.bus.subscribe("numbers", options)) {
    if (message.position === position) break;
    seen.push(message.payload as [number, number]);
  }
  return seen;
}

describe.skipIf(noRedis)("bus-redis on a managed server", () => {
  test("no acknowledged message is lost or reordered by kill -9 of server and daemon at the same time", async () => {
    const it = await start();
    const { pid } = await running(it);
    const { acknowledged, done } = publishOn(it.home);
    const ended = expect(done).rejects.toBeDefined();
    await waitFor(() => acknowledged.length >= 200, { what: "traffic", timeoutMs: 20_000 });
    process.kill(pid as number, "SIGKILL");
    await crash(it);
    await ended;
    await it.start();
    await usable(it);
    const seen = await read(it);
    const found = new Set(seen.map(String));
    expect(acknowledged.filter((one) => !found.has(String(one)))).toEqual([]);
    for (let publisher = 0; publisher < PUBLISHERS; publisher++) {
      const numbers = seen.filter(([index]) => index === publisher).map(([, number]) => number);
      expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
    }
    expect(await running(it, pid)).toMatchObject({ state: "running" });
  }, 60_000);

  test("a hanging server is reported, and used again when it continues", async () => {
    const it = await start();
    const { pid } = await running(it);
    process.kill(pid as number, "SIGSTOP");
    try {
      await expect(it.client.bus.publish("t", 1)).rejects.toMatchObject({ code: "bus_unavailable" });
      expect(await status(it)).toMatch(/problem: .*bus-redis/);
    } finally {
      process.kill(pid as number, "SIGCONT");
    }
    await usable(it);
    expect((await running(it)).pid).toBe(pid);
  }, 60_000);
});

if (!canMount) console.log("skipped: the test of a full disk must be allowed to mount a small one");
describe.skipIf(noRedis || !canMount)("bus-redis on a full disk", () => {
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

  test("concurrent large messages are refused when the disk is full, and the server keeps running", async () => {
    folder = mkdtempSync(join(tmpdir(), "openstarry-redis-disk-"));
    disk = mountSmallDisk(join(folder, "home"), 65_536);
    const it = await start({ home: join(folder, "home") });
    const { pid } = await running(it);
    const payload = "x".repeat(1_000_000);
    const acknowledged: string[] = [];
    const refusals: { code?: unknown; message: string }[] = [];
    const publish = async () => {
      while (refusals.length < 8) {
        const published = it.client.bus.publish("large", payload);
        await published.then(
          ({ position = "" }) => acknowledged.push(position),
          (error: Error) => refusals.push(error),
        );
      }
    };
    await Promise.all(Array.from({ length: 8 }, publish));
    expect(new Set(refusals.map(({ code }) => code))).toEqual(new Set(["bus_unavailable"]));
    expect(refusals[0]?.message).toContain("not enough space on the disk");
    // Reading works.
    const seen: (string | undefined)[] = [];
    const options = { after: "0", signal: AbortSignal.timeout(20_000) };
    for await (const { position } of it.client.bus.subscribe("large", options)) {
      seen.push(position);
      if (seen.length === acknowledged.length) break;
    }
    expect(seen).toEqual([...acknowledged].sort());
    expect(await running(it)).toMatchObject({ pid, restarts: 0 });
  }, 60_000);
});
