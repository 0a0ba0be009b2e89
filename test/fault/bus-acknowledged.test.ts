import { readFileSync } from "node:fs";
import { afterEach, expect, test } from "vitest";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { processesOf } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const PUBLISHERS = 4;
const KILLS = 4;

let daemon: TestDaemon | undefined;
const over = new AbortController();
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

/** Publishes "PUBLISHER/NUMBER" with rising numbers until the signal aborts. Resolves with the acknowledged ones. */
async function publishNumbers(it: TestDaemon, publisher: number, signal: AbortSignal): Promise<Set<string>> {
  const acknowledged = new Set<string>();
  for (let number = 0; !signal.aborted; number++) {
    const text = `${publisher}/${number}`;
    // After an error the message may be kept or not: it is published again until it is acknowledged.
    while (!acknowledged.has(text)) {
      await it.client.bus.publish("shared/numbers", text).then(
        () => acknowledged.add(text),
        (error: { code: string }) =>
          expect(error.code).toMatch(/bus_unavailable|daemon_unreachable|no_daemon|request_lost/),
      );
    }
  }
  return acknowledged;
}

/** Reads until the signal aborts, and resumes after the last position whenever the stream fails. */
async function readAll(it: TestDaemon, seen: string[], signal: AbortSignal): Promise<void> {
  let after = "0";
  while (!signal.aborted) {
    try {
      for await (const message of it.client.bus.subscribe("shared/numbers", { after, signal })) {
        after = message.position ?? after;
        seen.push(String(message.payload));
      }
    } catch (error) {
      if (!signal.aborted) expect(error).toMatchObject({ code: expect.any(String) });
    }
  }
}

async function consumeAll(it: TestDaemon, group: string, seen: string[], signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      const query = { group, after: "0", maxInFlight: 8, signal };
      for await (const { message, ack } of it.client.bus.consume("shared/#", query)) {
        seen.push(String(message.payload));
        await ack();
      }
    } catch (error) {
      if (!signal.aborted) expect(error).toMatchObject({ code: expect.any(String) });
    }
  }
}

/** Checks that each publisher's numbers rise, repetitions left out. */
function expectOrder(seen: readonly string[]): void {
  for (let publisher = 0; publisher < PUBLISHERS; publisher++) {
    const numbers = [...new Set(seen)].flatMap((text) => {
      const [of, number] = text.split("/").map(Number);
      return of === publisher ? [Number(number)] : [];
    });
    expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
  }
}

const broker = async (it: TestDaemon) => {
  const { pid, state } = await it.client.agents.get("svc:bus");
  return state === "running" ? pid : undefined;
};
const rssMiB = (pid: number) =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1_024;
const problems = async (it: TestDaemon) => (await it.client.daemon.status()).problems.join();

test("no acknowledged message is lost or reordered by kill -9 of the broker under load", async () => {
  const it = await startDaemon();
  daemon = it;
  const stopPublishing = new AbortController();
  const stopReading = new AbortController();
  await it.client.bus.publish("shared/first", "first");
  const seen: string[] = [];
  const inGroups: [string[], string[]] = [[], []];
  const readers = [
    readAll(it, seen, stopReading.signal),
    // Two members of one group, one of another.
    consumeAll(it, "one", inGroups[0], stopReading.signal),
    consumeAll(it, "one", inGroups[0], stopReading.signal),
    consumeAll(it, "two", inGroups[1], stopReading.signal),
  ];
  const publishers = Array.from({ length: PUBLISHERS }, (_, index) =>
    publishNumbers(it, index, stopPublishing.signal),
  );
  const daemonPid = it.pid();
  for (let kill = 1; kill <= KILLS; kill++) {
    const before = seen.length;
    await waitFor(() => seen.length > before + 50, { what: "traffic", timeoutMs: 30_000 });
    const pid = await waitFor(() => broker(it), { what: "the broker" });
    process.kill(pid, "SIGKILL");
    await waitFor(async () => /message broker/.test(await problems(it)), {
      what: "the problem to be reported",
    });
    await waitFor(async () => (await problems(it)) === "", { what: "the end of the problem" });
  }
  const before = seen.length;
  await waitFor(() => seen.length > before + 50, { what: "traffic", timeoutMs: 30_000 });
  stopPublishing.abort();
  const acknowledged = new Set((await Promise.all(publishers)).flatMap((them) => [...them]));
  for (const whole of [seen, ...inGroups]) {
    const missing = () => [...acknowledged].filter((text) => !whole.includes(text));
    await waitFor(() => missing().length === 0, { what: "all", diagnose: missing, timeoutMs: 30_000 });
  }
  stopReading.abort();
  await Promise.all(readers);
  expectOrder(seen);
  expect(it.pid()).toBe(daemonPid);
  expect((await it.client.agents.get("svc:bus")).restarts).toBe(KILLS);
  // About 70 MiB of it are Node itself.
  expect(rssMiB((await broker(it)) as number)).toBeLessThan(400);
}, 120_000);

test("the broker survives kill -9 of the daemon, and readers resume without a gap", async () => {
  const it = await startDaemon();
  daemon = it;
  for (let number = 0; number < 20; number++) await it.client.bus.publish("shared/numbers", `0/${number}`);
  const group = { group: "one", after: "0", signal: over.signal };
  const first = (await it.client.bus.consume("shared/#", group).next()).value;
  await first?.ack();
  const seen: string[] = [];
  const read = readAll(it, seen, over.signal);
  await waitFor(() => seen.length === 20, { what: "the kept messages" });
  const { pid } = await it.client.agents.get("svc:bus");

  process.kill(it.pid() as number, "SIGKILL");
  await waitFor(() => it.pid() === undefined, { what: "the lock to be free" });
  await it.start();
  expect(await it.client.agents.get("svc:bus")).toMatchObject({ pid, restarts: 0, state: "running" });
  const brokers = processesOf(it.home).filter(({ pid: other }) => other === pid);
  expect(brokers).toHaveLength(1);
  for (let number = 20; number < 40; number++) await it.client.bus.publish("shared/numbers", `0/${number}`);
  await waitFor(() => seen.length >= 40, { what: "the rest" });
  expect(seen).toEqual(Array.from({ length: 40 }, (_, number) => `0/${number}`));
  const next = (await it.client.bus.consume("shared/#", group).next()).value;
  expect(next?.message.payload).toBe("0/1");

  expect((await it.cli(["restart"])).code).toBe(0);
  await it.client.bus.publish("shared/numbers", "0/40");
  await waitFor(() => seen.includes("0/40"), { what: "the message published after the restart" });
  expect(seen).toHaveLength(41);
  expect(await it.client.agents.get("svc:bus")).toMatchObject({ pid, restarts: 0 });
  over.abort();
  await read;
});
