import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { MessageBus } from "../../core/index.js";
import { brokerSubject } from "../helpers/mqtt-broker.js";
import { canMount, mountSmallDisk } from "../helpers/small-disk.js";
import { waitFor } from "../helpers/wait-for.js";

if (!canMount) console.log("skipped: the test of a full disk must be allowed to mount a small one");

let folder: string;
let broker: ReturnType<typeof brokerSubject>;
let over: AbortController;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "openstarry-bus-"));
  over = new AbortController();
});
afterEach(async () => {
  over.abort();
  await broker.stop();
  rmSync(folder, { recursive: true, force: true });
});

async function start(): Promise<MessageBus> {
  broker = brokerSubject(folder);
  await broker.start();
  return broker.bus;
}

const rssMiB = (pid = 0) =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1_024;
const text = (payload: Uint8Array) => Buffer.from(payload).toString();
const group = (more: object = {}) => ({
  filter: "t",
  group: "g",
  ackWaitMs: 60_000,
  maxInFlight: 10,
  signal: over.signal,
  ...more,
});

test("after kill -9 of the broker only unacknowledged messages are delivered again", async () => {
  const bus = await start();
  const members = bus.consume(group())[Symbol.asyncIterator]();
  const first = members.next();
  for (const number of ["1", "2", "3", "4"]) await bus.publish({ topic: "t", payload: Buffer.from(number) });
  const one = (await first).value;
  const two = (await members.next()).value;
  const three = (await members.next()).value;
  await two.ack();
  const four = (await members.next()).value;
  expect(four.attempt).toBe(1);
  const lost = expect(members.next()).rejects.toMatchObject({ code: "bus_unavailable" });
  await broker.endBroker("SIGKILL");
  await lost;
  await expect(bus.publish({ topic: "t", payload: Buffer.from("x") })).rejects.toMatchObject({
    code: "bus_unavailable",
  });
  expect(bus.health()).toEqual(expect.any(String));
  broker.startBroker();
  await waitFor(() => bus.health() === undefined, { what: "the broker" });
  // A delivery of the earlier broker.
  await one.ack();
  const again: string[] = [];
  for await (const { message, ack } of bus.consume(group())) {
    again.push(text(message.payload));
    await ack();
    if (again.length === 2) break;
  }
  expect(again.sort()).toEqual(["3", "4"]);
  await three.ack();
});

test("100,000 messages wait for a group without members in bounded memory", async () => {
  const bus = await start();
  const member = bus.consume(group({ filter: "t/#" }))[Symbol.asyncIterator]();
  const first = member.next();
  let next = 0;
  const publisher = async () => {
    for (let number = next++; number < 100_000; number = next++)
      await bus.publish({ topic: `t/${number % 100}`, payload: Buffer.from(String(number)) });
  };
  const publishers = Array.from({ length: 512 }, publisher);
  await (await first).value.nack();
  await member.return?.();
  await Promise.all(publishers);
  expect(rssMiB(broker.pid())).toBeLessThan(300);
  await broker.endBroker("SIGKILL");
  broker.startBroker();
  await waitFor(() => bus.health() === undefined, { what: "the broker" });
  const seen = new Set<string>();
  for await (const { message, ack } of bus.consume(group({ filter: "t/#", maxInFlight: 100 }))) {
    seen.add(text(message.payload));
    // Enough to see that deliveries arrive.
    if (seen.size === 50) break;
    if (seen.size % 10 === 0) await ack();
  }
  expect(seen).toContain("0");
  let count = 0;
  for await (const _ of bus.subscribe({ filter: "t/#", after: "0", signal: over.signal }))
    if (++count === 100_000) break;
}, 240_000);

test("a slow reader uses bounded memory in broker and daemon, and large messages arrive complete", async () => {
  const bus = await start();
  const slow = bus.subscribe({ filter: "large", signal: over.signal })[Symbol.asyncIterator]();
  const first = slow.next();
  const [brokerBefore, before] = [rssMiB(broker.pid()), rssMiB(process.pid)];
  for (let number = 0; number < 200; number++) {
    await bus.publish({ topic: "large", payload: Buffer.alloc(2 ** 20, number) });
  }
  expect(rssMiB(broker.pid()) - brokerBefore).toBeLessThan(150);
  expect(rssMiB(process.pid) - before).toBeLessThan(150);
  for (let number = 0; number < 200; number++) {
    const { value } = await (number === 0 ? first : slow.next());
    expect(Buffer.compare(value.payload, Buffer.alloc(2 ** 20, number))).toBe(0);
  }
}, 60_000);

test.runIf(canMount)(
  "on a full disk publishing fails and reading works, until there is room again",
  async () => {
    const disk = mountSmallDisk(folder, 4_096);
    try {
      const bus = await start();
      await bus.publish({ topic: "t", payload: Buffer.from("before") });
      disk.fill();
      const full = async () => {
        for (let number = 0; number < 100; number++)
          await bus.publish({ topic: "t", payload: Buffer.alloc(65_536) });
      };
      await expect(full()).rejects.toMatchObject({
        code: "bus_unavailable",
        hint: expect.stringContaining("free disk space"),
      });
      expect(broker.problem()).toMatch(/full/);
      const { value } = await bus
        .subscribe({ filter: "t", after: "0", signal: over.signal })
        [Symbol.asyncIterator]()
        .next();
      expect(text(value.payload)).toBe("before");
      disk.free();
      await bus.publish({ topic: "t", payload: Buffer.from("after") });
      await waitFor(() => broker.problem() === undefined, { what: "the end of the problem" });
    } finally {
      over.abort();
      await broker.stop();
      disk.remove();
    }
  },
);

test("a second broker on the same folder exits, and the first one keeps working", async () => {
  const bus = await start();
  const second = brokerSubject(folder);
  expect(await second.runToEnd()).toMatch(/another message broker runs on this folder/);
  await bus.publish({ topic: "t", payload: Buffer.from("x") });
});
