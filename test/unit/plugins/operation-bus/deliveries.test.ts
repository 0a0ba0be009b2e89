import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, it } from "vitest";
import type { BusDelivery } from "../../../../core/index.js";
import { createDeliveries } from "../../../../plugins/operation-bus/deliveries.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";

const DAY_MS = 86_400_000;

function delivery(payload: Uint8Array = Buffer.from("1")): BusDelivery {
  const message = { topic: "t", payload, at: "2026-01-01T00:00:00.000Z" };
  return { message, attempt: 1, ack: async () => {}, nack: async () => {} };
}

it("of what is settled no more than the newest is remembered, however long its time", async () => {
  const clock = createFakeClock();
  const book = createDeliveries(clock);
  const stream = book.ofStream("agent:a", DAY_MS);
  const tokens: string[] = [];
  for (let count = 0; count < 5_000; count++) {
    const token = stream.add(delivery());
    await book.ack(token, "agent:a");
    tokens.push(token);
  }
  expect(clock.pending()).toBeLessThanOrEqual(2_000);
  for (const token of tokens.slice(-1_000)) await book.ack(token, "agent:a");
  await expect(book.ack(tokens[0] ?? "", "agent:a")).rejects.toMatchObject({ code: "delivery_is_over" });
});

it("what is not settled is never forgotten for what is", async () => {
  const clock = createFakeClock();
  const book = createDeliveries(clock);
  const stream = book.ofStream("agent:a", DAY_MS);
  const open = Array.from({ length: 1_000 }, () => stream.add(delivery()));
  for (let count = 0; count < 3_000; count++) await book.ack(stream.add(delivery()), "agent:a");
  for (const token of open) await book.ack(token, "agent:a");
  stream.end();
  expect(clock.pending()).toBe(0);
});

it("no message is held on to until it is settled", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const stream = createDeliveries(createFakeClock()).ofStream("agent:a", DAY_MS);
  const deliver = () => {
    const payload = new Uint8Array(1_000);
    stream.add(delivery(payload));
    return new WeakRef(payload);
  };
  const payload = deliver();
  await new Promise((resolve) => setImmediate(resolve));
  collect();
  expect(payload.deref()).toBeUndefined();
});
