import { afterEach, beforeEach, expect, it } from "vitest";
import { z } from "zod";
import {
  definePlugin,
  type MessageBus,
  messageBus,
  OpenStarryError,
  systemClock,
} from "../../../../core/index.js";
import { createMemoryBus } from "../../../../plugins/bus-memory/memory-bus.js";
import operationBus from "../../../../plugins/operation-bus/index.js";
import { createTestKernel, type TestKernel } from "../../../contract/index.js";
import { waitFor } from "../../../helpers/wait-for.js";

// A bus that comes and goes.
const operator = { actor: "operator", reason: "a test" };
const me = { kind: "operator", id: "operator" } as const;
const LIMITS = { maxMessages: 10_000, maxBytes: 2 ** 26, maxGroups: 100 };

let bus: MessageBus;
let isAway: boolean;
let wanted: number;
let kernel: TestKernel;

const shaky = definePlugin({
  name: "bus-shaky",
  apiVersion: 1,
  provides: [messageBus],
  options: z.strictObject({}),
  setup(ctx) {
    bus = createMemoryBus(systemClock, LIMITS).bus;
    const there = () => {
      if (isAway) throw new OpenStarryError("bus_unavailable", { detail: "it is away" });
    };
    ctx.provide(messageBus, {
      ...bus,
      async publish(...it) {
        there();
        return bus.publish(...it);
      },
      async drop(filter) {
        there();
        return bus.drop(filter);
      },
      health: () => (isAway ? "it is away" : undefined),
      wanted: () => void wanted++,
    });
  },
});

beforeEach(async () => {
  isAway = true;
  wanted = 0;
  kernel = createTestKernel({ plugins: [shaky(), operationBus()] });
  await kernel.start();
});
afterEach(() => kernel.stop({ agents: "stop", reason: "the test is over" }));

/** What is kept under a filter by now, by topic. */
async function kept(filter: string): Promise<{ topic: string; value: Record<string, unknown> }[]> {
  const seen: { topic: string; value: Record<string, unknown> }[] = [];
  const { position: last } = await bus.publish({ topic: "end", payload: Buffer.from("{}") });
  const signal = AbortSignal.timeout(10_000);
  for await (const { topic, payload, position } of bus.subscribe({ filter: "#", after: "0", signal })) {
    if (position === last) break;
    seen.push({ topic, value: JSON.parse(Buffer.from(payload).toString()) });
  }
  return seen.filter(({ topic }) => topic.startsWith(filter));
}

async function create(agent_id: string): Promise<void> {
  await kernel.control.create({ agent_id, template_id: "Plain" }, operator);
  await kernel.agents.wait(agent_id, "ready");
}

async function remove(agent_id: string): Promise<void> {
  const gone = kernel.agents.wait(agent_id, "gone");
  await kernel.control.remove(agent_id, operator);
  await gone;
}

const events = async () => (await kept("openstarry/events")).map(({ value }) => Number(value["id"]));

it("what the daemon had to tell is told in order when the bus is back, and starts no bus", async () => {
  await create("a");
  expect([wanted, await events()]).toEqual([0, []]);
  isAway = false;
  await waitFor(async () => (await events()).includes(kernel.journal.lastEventId()), { what: "the events" });
  const first = await events();
  expect(first).toEqual([...first].sort((x, y) => x - y));
  expect((await kept("openstarry/presence/a")).map(({ value }) => value["present"])).toContain(true);
  isAway = true;
  await create("b");
  isAway = false;
  await waitFor(async () => (await events()).includes(kernel.journal.lastEventId()), { what: "the events" });
  await create("c");
  await waitFor(async () => (await events()).includes(kernel.journal.lastEventId()), { what: "the events" });
  const all = await events();
  expect(all).toEqual(Array.from({ length: all.length }, (_, index) => (all[0] ?? 0) + index));
});

it("of a long time without it the last events are told, and none of an earlier agent of an id", async () => {
  for (let count = 0; count < 220; count++) {
    await create("a");
    await remove("a");
  }
  await create("a");
  isAway = false;
  await waitFor(async () => (await events()).includes(kernel.journal.lastEventId()), { what: "the events" });
  expect((await events()).length).toBeLessThanOrEqual(1_000);
  const born = String(kernel.agents.get("a")?.created_at);
  const mine = (await kept("openstarry/events")).filter(({ topic }) => topic.endsWith("/a"));
  expect(mine.length).toBeGreaterThan(0);
  for (const { value } of mine) expect(String(value["at"]) >= born).toBe(true);
});

it("what was to be dropped meanwhile is dropped before the bus is used again", async () => {
  isAway = false;
  await create("a");
  await bus.publish({ topic: "agents/a/inbox", payload: Buffer.from('{"of":"the first"}') });
  isAway = true;
  await remove("a");
  await create("a");
  isAway = false;
  await kernel.dispatch("bus.publish", { topic: "agents/a/inbox", payload: { of: "the second" } }, me);
  expect((await kept("agents/a")).map(({ value }) => value)).toEqual([{ of: "the second" }]);
  await waitFor(async () => (await events()).includes(kernel.journal.lastEventId()), { what: "the events" });
  expect((await kept("agents/a")).map(({ value }) => value)).toEqual([{ of: "the second" }]);
});

it("a request waits for a bus that is left until it is needed", async () => {
  const sent = kernel.dispatch("bus.publish", { topic: "shared/t", payload: 1 }, me);
  await waitFor(() => wanted === 1, { what: "the bus to be wanted" });
  isAway = false;
  expect(await sent).toMatchObject({ topic: "shared/t", position: expect.any(String) });
  expect(wanted).toBe(1);
});
