import { afterEach, expect, it } from "vitest";
import { memoryJournalState } from "../../contract/memory-plugins.js";
import { createTestKernel, type TestKernel, type TestKernelOptions } from "../../contract/test-kernel.js";
import { createFakeClock } from "../../helpers/fake-clock.js";
import { waitFor } from "../../helpers/wait-for.js";

const operator = { actor: "operator", reason: "a test" };
const DAY_MS = 86_400_000;
const policy = {
  decide: () => ({ action: "restart" as const, delayMs: 60_000, reason: "later", memory: 0 }),
};
const templates = { Plain: {}, Brief: { remove_after: "1h" } };
const kernels: TestKernel[] = [];

async function started(options: TestKernelOptions): Promise<TestKernel> {
  const kernel = createTestKernel({ templates, policy, ...options });
  kernels.push(kernel);
  await kernel.start();
  return kernel;
}
afterEach(async () => {
  for (const kernel of kernels.splice(0)) await kernel.stop({ agents: "stop", reason: "the test is over" });
});

async function running(kernel: TestKernel, agent_id: string, template_id = "Plain") {
  await kernel.control.create({ agent_id, template_id }, operator);
  return kernel.agents.wait(agent_id, "ready");
}
const stateOf = (kernel: TestKernel, id: string) => kernel.agents.get(id)?.state;

it.each([-DAY_MS, DAY_MS])(
  "a backoff lasts as long as it lasts when the clock jumps by %i ms",
  async (jump) => {
    const clock = createFakeClock();
    const kernel = await started({ clock });
    await running(kernel, "a");
    kernel.spawner.run("a").end({ kind: "exited", code: 1 });
    await waitFor(() => stateOf(kernel, "a") === "backoff", { what: "the backoff" });
    clock.jumpWallClock(jump);
    await clock.advance(59_000);
    expect(stateOf(kernel, "a")).toBe("backoff");
    await clock.advance(1_000);
    expect((await kernel.agents.wait("a", "ready")).restarts).toBe(1);
  },
);

it.each([-DAY_MS, DAY_MS])(
  "a record is kept as long as it was to be when the clock jumps by %i ms",
  async (jump) => {
    const clock = createFakeClock();
    const kernel = await started({ clock });
    await running(kernel, "a", "Brief");
    await kernel.control.stop("a", operator);
    await kernel.agents.wait("a", "ended");
    clock.jumpWallClock(jump);
    await clock.advance(3_599_000);
    expect(stateOf(kernel, "a")).toBe("stopped");
    await clock.advance(1_000);
    await waitFor(() => kernel.agents.get("a") === undefined, { what: "the record to go" });
  },
);

it("a boot with a clock far in the past lets nobody wait, and nothing be kept, longer than it was to be", async () => {
  const state = memoryJournalState();
  const first = await started({ clock: createFakeClock(), state });
  await running(first, "waits");
  first.spawner.run("waits").end({ kind: "exited", code: 1 });
  await waitFor(() => stateOf(first, "waits") === "backoff", { what: "the backoff" });
  await running(first, "over", "Brief");
  await first.control.stop("over", operator);
  await first.agents.wait("over", "ended");
  await first.stop({ agents: "keep", reason: "a crash" });

  const clock = createFakeClock(Date.UTC(1980, 0, 1));
  const second = await started({ clock, state });
  await clock.advance(60_000);
  expect((await second.agents.wait("waits", "ready")).state).toBe("running");
  expect(stateOf(second, "over")).toBe("stopped");
  await clock.advance(3_600_000);
  await waitFor(() => second.agents.get("over") === undefined, { what: "the record to go" });
});

it("a boot with a clock far in the future starts at once what waited", async () => {
  const state = memoryJournalState();
  const first = await started({ clock: createFakeClock(), state });
  const before = await running(first, "a");
  first.spawner.run("a").end({ kind: "exited", code: 1 });
  await waitFor(() => stateOf(first, "a") === "backoff", { what: "the backoff" });
  await first.stop({ agents: "keep", reason: "a crash" });
  const clock = createFakeClock(Date.UTC(2090, 0, 1));
  const second = await started({ clock, state });
  await clock.advance(1);
  const future = await second.agents.wait("a", "ready");
  // And back to today: runs and events stay in their order.
  clock.jumpWallClock(Date.UTC(2026, 0, 1) - Date.UTC(2090, 0, 1));
  await second.control.restart("a", operator);
  await second.agents.wait("a", "settled");
  const today = await second.agents.wait("a", "ready");
  const ids = [before.run_id, future.run_id, today.run_id];
  expect([...ids].sort()).toEqual(ids);
  const { events } = await second.journal.events({ after: 0, limit: 1_000 });
  expect(events.map(({ id }) => id)).toEqual(events.map((_, index) => index + 1));
  expect(events.at(-1)?.at).toMatch(/^2026-/);
});
