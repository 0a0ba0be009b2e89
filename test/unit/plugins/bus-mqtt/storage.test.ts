import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it, test } from "vitest";
import { type MessageBus, systemClock } from "../../../../core/index.js";
import {
  type DurableStorageOptions,
  openDurableStorage,
} from "../../../../plugins/bus-mqtt/broker/storage/durable-storage.js";
import { createBusEngine } from "../../../../plugins/kit/bus/bus-engine.js";
import { type MessageBusSubject, testMessageBus } from "../../../contract/index.js";

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "openstarry-bus-"));
  folders.push(folder);
  return folder;
}

async function open(folder: string, options: Partial<DurableStorageOptions> = {}) {
  const limits = { maxMessages: 10_000, maxBytes: 2 ** 26, recentBytes: 0 };
  const storage = await openDurableStorage({
    folder,
    clock: systemClock,
    ...limits,
    onProblem: () => {},
    ...options,
  });
  const { bus, stop } = createBusEngine({
    name: "x",
    clock: systemClock,
    ...storage,
    durable: true,
    maxGroups: 100,
  });
  return {
    bus,
    log: storage.log,
    groups: storage.groups,
    async stop() {
      await stop();
      await storage.close();
    },
  };
}

/** Opens the bus in this process, with a cache of one message, so that nearly everything is read from the file. */
function subject(folder: string): MessageBusSubject {
  let opened: Awaited<ReturnType<typeof open>> | undefined;
  return {
    get bus() {
      return opened?.bus as MessageBus;
    },
    async start() {
      opened = await open(folder);
    },
    stop: () => opened?.stop(),
    reopen: () => subject(folder),
  };
}

testMessageBus({ test, factory: () => subject(newFolder()), capabilities: { durable: true } });

describe("the storage of bus-mqtt", () => {
  const { signal } = new AbortController();
  const send = (bus: MessageBus, topic: string, payload: string | Uint8Array = topic) =>
    bus.publish({ topic, payload: Buffer.from(payload) });
  async function readKept(bus: MessageBus, count: number, filter = "#"): Promise<string[]> {
    const seen: string[] = [];
    for await (const { topic } of bus.subscribe({ filter, after: "0", signal })) {
      seen.push(topic);
      if (seen.length === count) break;
    }
    return seen;
  }

  it("a message far behind many others is found by any filter", async () => {
    const { bus, stop } = await open(newFolder());
    await Promise.all(Array.from({ length: 2_000 }, (_, index) => send(bus, `many/${index % 10}`)));
    await send(bus, "few/1");
    for (const filter of ["few/1", "few/+", "few/#", "+/1"])
      expect((await readKept(bus, filter === "+/1" ? 201 : 1, filter)).at(-1)).toBe("few/1");
    await stop();
  });

  it("the number and size of messages stay within the limits, also after a limit was lowered, and so does the file", async () => {
    const folder = newFolder();
    const first = await open(folder, { maxMessages: 300 });
    for (let index = 0; index < 50; index++)
      await Promise.all(Array.from({ length: 100 }, () => send(first.bus, "t", Buffer.alloc(4_096))));
    expect(first.log.count()).toBe(300);
    await first.stop();
    // About 300 times 4 KiB, and the pages of the largest commit.
    expect(statSync(join(folder, "bus.db")).size).toBeLessThan(4 * 2 ** 20);
    const second = await open(folder, { maxBytes: 40_960 });
    await send(second.bus, "last");
    expect(second.log.count()).toBe(10);
    expect((await readKept(second.bus, 10)).at(-1)).toBe("last");
    await send(second.bus, "large", Buffer.alloc(2 ** 20));
    expect(second.log.count()).toBe(1);
    await second.stop();
  });

  it("messages are counted correctly after a drop", async () => {
    const folder = newFolder();
    const first = await open(folder, { maxMessages: 4 });
    for (const topic of ["a/1", "b", "a/2", "ab"]) await send(first.bus, topic);
    await first.bus.drop("a/#");
    expect(first.log.count()).toBe(2);
    await first.stop();
    const second = await open(folder, { maxMessages: 4 });
    for (const topic of ["c", "d", "e"]) await send(second.bus, topic);
    expect(await readKept(second.bus, 4)).toEqual(["ab", "c", "d", "e"]);
    await second.stop();
  });

  it("a group whose removal failed is gone for good after a second try", async () => {
    const folder = newFolder();
    const first = await open(folder);
    for (const group of ["g", "h"]) {
      const options = { filter: "t", group, after: "0", ackWaitMs: 60_000, maxInFlight: 1, signal };
      await send(first.bus, "t");
      await first.bus.consume(options)[Symbol.asyncIterator]().next();
    }
    const { remove } = first.groups;
    first.groups.remove = async () => {
      throw new Error("the disk is full");
    };
    const removeGroup = () => first.bus.removeGroup({ filter: "t", group: "g" });
    await expect(removeGroup()).rejects.toThrow("the disk is full");
    await expect(first.bus.drop("t")).rejects.toThrow("the disk is full");
    first.groups.remove = remove;
    await removeGroup();
    await first.stop();
    const second = await open(folder);
    expect(second.groups.all().map(({ group }) => group)).toEqual(["h"]);
    await second.stop();
  });

  it("a second process cannot open the storage", async () => {
    const folder = newFolder();
    const { stop } = await open(folder);
    await expect(open(folder)).rejects.toMatchObject({
      code: "home_unusable",
      hint: expect.stringContaining("another message broker runs on this folder"),
    });
    await stop();
    await (await open(folder)).stop();
  });

  it("positions of a new file come after those of the file that it replaces", async () => {
    const folder = newFolder();
    const first = await open(folder);
    const { position = "" } = await send(first.bus, "t");
    await first.stop();
    for (const suffix of ["", "-wal", "-shm"]) rmSync(join(folder, `bus.db${suffix}`), { force: true });
    const second = await open(folder);
    expect(Number((await send(second.bus, "t")).position)).toBeGreaterThan(Number(position));
    await second.stop();
  });
});
