import { afterEach, expect, it } from "vitest";
import { z } from "zod";
import { definePlugin, type PluginContext, SpawnDeferred, SpawnVetoed } from "../../../core/index.js";
import { memoryJournalState, memorySpawner } from "../../contract/memory-plugins.js";
import { createTestKernel, type TestKernel, type TestKernelOptions } from "../../contract/test-kernel.js";
import { createFakeClock } from "../../helpers/fake-clock.js";
import { waitFor } from "../../helpers/wait-for.js";

const operator = { actor: "operator", reason: "a test" };
const kernels: TestKernel[] = [];

async function started(options: TestKernelOptions = {}): Promise<TestKernel> {
  const kernel = createTestKernel(options);
  kernels.push(kernel);
  await kernel.start();
  return kernel;
}

async function running(kernel: TestKernel, id: string, template_id = "Plain") {
  await kernel.control.create({ agent_id: id, template_id }, operator);
  return kernel.agents.wait(id, "ready");
}

afterEach(async () => {
  for (const kernel of kernels.splice(0)) await kernel.stop({ agents: "stop", reason: "the test is over" });
});

function plugin(name: string, setup: (ctx: PluginContext) => void) {
  return definePlugin({ name, apiVersion: 1, options: z.strictObject({}), setup })();
}

it("a wish that could not be written undoes itself, and nothing that happened meanwhile", async () => {
  const kernel = await started();
  await running(kernel, "a");
  kernel.spawner.run("a").end({ kind: "exited", code: 0 });
  kernel.state.broken = true;
  await expect(kernel.control.hold("a", operator)).rejects.toMatchObject({ code: "journal_unavailable" });
  kernel.state.broken = false;
  expect((await kernel.agents.wait("a", "ended")).state).toBe("exited");
  await kernel.control.start("a", operator);
  expect((await kernel.agents.wait("a", "ready")).pid).toBe(100_001);
});

it("a restart ends nothing before it is durable: one that cannot be written leaves the run alone", async () => {
  const kernel = await started();
  const before = await running(kernel, "a");
  kernel.state.broken = true;
  const restarted = kernel.control.restart("a", operator);
  await expect(restarted).rejects.toMatchObject({ code: "journal_unavailable" });
  expect(kernel.spawner.run("a")).toMatchObject({ live: true, signals: [] });
  kernel.state.broken = false;
  expect(await kernel.agents.wait("a", "ready")).toMatchObject({ run_id: before.run_id, pid: before.pid });
});

it("a run that ends while the journal is broken is written when it is mended", async () => {
  const clock = createFakeClock();
  const kernel = await started({ clock });
  await running(kernel, "a");
  kernel.state.broken = true;
  kernel.spawner.run("a").end({ status: { kind: "exited", code: 0 }, result: "42" });
  await kernel.agents.wait("a", "ended");
  expect(kernel.state.runs).toEqual([]);
  kernel.state.broken = false;
  await clock.advance(5_000);
  expect(kernel.state.runs).toMatchObject([{ agent_id: "a", result: "42" }]);
  expect(kernel.state.agents.get("a")?.agent.state).toBe("exited");
  expect(kernel.state.events.filter(({ type }) => type === "agent.exited")).toHaveLength(1);
});

it("a restart policy that throws gives the agent up, and says why", async () => {
  const spawner = memorySpawner();
  const kernel = await started({
    spawner,
    policy: {
      decide() {
        throw new Error("no idea");
      },
    },
  });
  await running(kernel, "a");
  spawner.run("a").end({ kind: "exited", code: 1 });
  const failed = await kernel.agents.wait("a", "ended");
  expect(failed).toMatchObject({ state: "failed", reason: expect.stringContaining("no idea") });
});

it("a policy's delay is never longer than the longest backoff", async () => {
  const clock = createFakeClock();
  const policy = {
    decide: () => ({
      action: "restart" as const,
      delayMs: Number.POSITIVE_INFINITY,
      reason: "later",
      memory: 0,
    }),
  };
  const kernel = await started({ clock, policy });
  await running(kernel, "a");
  kernel.spawner.run("a").end({ kind: "exited", code: 1 });
  await waitFor(() => kernel.agents.get("a")?.state === "backoff", { what: "the backoff" });
  await clock.advance(60_000);
  expect((await kernel.agents.wait("a", "ready")).restarts).toBe(1);
});

it("a deferred start is asked for again when it said, whatever else happens", async () => {
  const clock = createFakeClock();
  let asked = 0;
  const busy = plugin("busy", (ctx) =>
    ctx.hooks.beforeSpawn.tap("busy", ({ agentId }) => {
      if (agentId.startsWith("b"))
        throw new SpawnDeferred(`busy, asked ${++asked} times`, { retryAfterMs: 3_600_000 });
      return undefined;
    }),
  );
  const kernel = await started({ clock, plugins: [busy] });
  for (const id of ["b1", "b2"])
    await kernel.control.create({ agent_id: id, template_id: "Plain" }, operator);
  await running(kernel, "a");
  await clock.advance(600_000);
  expect(asked).toBe(2);
  await clock.advance(3_000_000);
  expect(asked).toBe(4);
});

it("an observer may throw anything, also what is meant for deciders", async () => {
  const rude = plugin("rude", (ctx) =>
    ctx.hooks.afterSpawn.tap("veto", () => {
      throw new SpawnVetoed("too late");
    }),
  );
  const kernel = await started({ plugins: [rude] });
  await running(kernel, "a");
  await kernel.control.stop("a", operator);
  expect((await kernel.agents.wait("a", "ended")).state).toBe("stopped");
  expect(kernel.plugins().find(({ name }) => name === "rude")?.state).toBe("degraded");
});

it("a plugin whose tap failed is degraded until that tap works again", async () => {
  let fails = true;
  const moody = plugin("moody", (ctx) => {
    ctx.hooks.afterSpawn.tap("note", () => {
      if (fails) throw new Error("not today");
    });
    ctx.hooks.onReady.tap("fine", () => {});
  });
  const kernel = await started({ plugins: [moody] });
  const state = () => kernel.plugins().find(({ name }) => name === "moody");
  await running(kernel, "a");
  await waitFor(() => state()?.state === "degraded", { what: "the fault" });
  expect(kernel.status().problems.join()).toContain("not today");
  fails = false;
  await running(kernel, "b");
  await waitFor(() => state()?.state === "started", { what: "the recovery", diagnose: state });
  expect(kernel.status().problems).toEqual([]);
});

it("a spawner that cannot stop a run is asked again", async () => {
  const clock = createFakeClock();
  const spawner = memorySpawner();
  let refusals = 1;
  const spawn = spawner.spawn.bind(spawner);
  spawner.spawn = async (spec, commit) => {
    const handle = await spawn(spec, commit);
    return {
      ...handle,
      stop: async (how) => {
        if (refusals-- > 0) throw new Error("not now");
        return handle.stop(how);
      },
    };
  };
  const kernel = await started({ spawner, clock });
  await running(kernel, "a");
  await kernel.control.stop("a", operator);
  await clock.advance(2_000);
  expect((await kernel.agents.wait("a", "ended")).state).toBe("stopped");
});

it("what cannot be removed of an agent does not keep its record", async () => {
  const spawner = Object.assign(memorySpawner(), {
    forget: async () => {
      throw new Error("EACCES");
    },
  });
  const kernel = await started({ spawner });
  await running(kernel, "a");
  await kernel.control.remove("a", operator);
  await waitFor(() => !kernel.agents.get("a"), { what: "the record to go" });
  expect(kernel.state.events.filter(({ type }) => type === "agent.deleted")).toHaveLength(1);
  expect(kernel.logged.some(({ message }) => message.includes("could not remove everything"))).toBe(true);
});

it("nothing is started once a stop has begun", async () => {
  let release = () => {};
  const spawner = memorySpawner();
  spawner.check = () =>
    new Promise((resolve) => {
      release = resolve;
    });
  const kernel = createTestKernel({ spawner });
  await kernel.start();
  const created = kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
  const refused = expect(created).rejects.toMatchObject({ code: "daemon_stopping" });
  await waitFor(() => release !== undefined, { what: "the check" });
  const stopped = kernel.stop({ agents: "stop", reason: "maintenance" });
  await new Promise(setImmediate);
  release();
  await Promise.all([refused, stopped]);
  expect(spawner.runs).toEqual([]);
});

it("runs are in order also after the clock was set back", async () => {
  const clock = createFakeClock();
  const kernel = await started({ clock });
  const first = await running(kernel, "a");
  clock.jumpWallClock(-3_600_000);
  await kernel.control.restart("a", operator);
  await kernel.agents.wait("a", "settled");
  const second = await kernel.agents.wait("a", "ready");
  expect([first.run_id, second.run_id].sort()).toEqual([first.run_id, second.run_id]);
  expect(second.run_id).not.toBe(first.run_id);
});

it.each([
  ["forward", 86_400_000],
  ["back", -86_400_000],
])(
  "a wall clock that jumps %s by a day neither hurries nor delays a backoff, nor the forgetting",
  async (_, jumpMs) => {
    const clock = createFakeClock();
    const templates = { Plain: { restart: { backoff: { min: "10s", max: "10s" } }, remove_after: "1h" } };
    const kernel = await started({ clock, templates });
    await running(kernel, "a");
    kernel.spawner.run("a").end({ kind: "exited", code: 1 });
    await kernel.agents.wait("a", "settled");
    clock.jumpWallClock(jumpMs);
    await clock.advance(4_000);
    expect(kernel.agents.get("a")?.state).toBe("backoff");
    await clock.advance(6_500);
    expect(kernel.agents.get("a")?.state).toBe("running");
    await kernel.control.stop("a", operator);
    await kernel.agents.wait("a", "ended");
    clock.jumpWallClock(jumpMs);
    await clock.advance(3_500_000);
    expect(kernel.agents.get("a")?.state).toBe("stopped");
    await clock.advance(200_000);
    expect(kernel.agents.get("a")).toBeUndefined();
  },
);

it("what ended in the future, by a clock that was set back, is forgotten in its time from the boot on", async () => {
  const clock = createFakeClock();
  const state = memoryJournalState();
  const templates = { Plain: { remove_after: "1h" } };
  const first = await started({ clock, state, templates });
  await running(first, "a");
  await first.control.stop("a", operator);
  await first.agents.wait("a", "ended");
  await first.stop({ agents: "keep", reason: "over" });
  clock.jumpWallClock(-86_400_000);
  const second = await started({ clock, state, templates });
  await clock.advance(3_700_000);
  expect(second.agents.get("a")).toBeUndefined();
});

it("a stop that could not be written is written when the journal is mended, also of what has no process", async () => {
  const clock = createFakeClock();
  const policy = {
    decide: () => ({ action: "restart" as const, delayMs: 60_000, reason: "later", memory: 0 }),
  };
  const kernel = await started({ clock, policy });
  await running(kernel, "a");
  kernel.spawner.run("a").end({ kind: "exited", code: 1 });
  await waitFor(() => kernel.agents.get("a")?.state === "backoff", { what: "the backoff" });
  kernel.state.broken = true;
  await expect(kernel.control.stop("a", operator)).rejects.toMatchObject({ code: "journal_unavailable" });
  expect((await kernel.agents.wait("a", "ended")).state).toBe("stopped");
  await clock.advance(20_000);
  kernel.state.broken = false;
  await clock.advance(5_000);
  expect(kernel.state.agents.get("a")?.agent).toMatchObject({ state: "stopped", desired: "stopped" });
  // Once, however often it was tried.
  expect(kernel.logged.filter(({ message }) => message.includes("could not be journaled"))).toHaveLength(1);
});

it("an agent that was taken over stays, whatever else of it is found", async () => {
  const [state, spawner] = [memoryJournalState(), memorySpawner()];
  const before = await started({ state, spawner });
  const { run_id } = await running(before, "a");
  await before.stop({ agents: "keep", reason: "an upgrade" });
  spawner.reapOrphans = async () => [{ agentId: "a", pids: [4_711] }];
  const kernel = await started({ state, spawner });
  expect(kernel.agents.get("a")).toMatchObject({ state: "running", run_id });
  expect(kernel.agents.quarantined("a")).toBeUndefined();
  expect(kernel.status().problems).toEqual([
    expect.stringMatching(/another run of agent a goes on \(pid 4711\)/),
  ]);
  await kernel.control.stop("a", operator);
  expect((await kernel.agents.wait("a", "ended")).state).toBe("stopped");
});

it("how a run that is taken over is contained, is what its spawner says now", async () => {
  const [state, spawner] = [memoryJournalState(), memorySpawner()];
  const before = await started({ state, spawner });
  expect((await running(before, "a")).containment).toBe("full");
  await before.stop({ agents: "keep", reason: "an upgrade" });
  const adopt = spawner.adopt.bind(spawner);
  spawner.adopt = async (spec) => {
    const taken = await adopt(spec);
    return taken.handle ? { handle: { ...taken.handle, containment: "best_effort" } } : taken;
  };
  const kernel = await started({ state, spawner });
  expect(kernel.agents.get("a")?.containment).toBe("best_effort");
});

it("an agent of which only strays are found is quarantined, and started no more", async () => {
  const [state, spawner] = [memoryJournalState(), memorySpawner()];
  const before = await started({ state, spawner });
  await running(before, "a");
  await before.stop({ agents: "keep", reason: "an upgrade" });
  spawner.run("a").end({ kind: "exited", code: 1 });
  spawner.reapOrphans = async () => [{ agentId: "a", pids: [4_711] }];
  const kernel = await started({ state, spawner });
  expect(kernel.agents.get("a")).toBeUndefined();
  expect(kernel.agents.quarantined("a")).toContain("4711");
  expect(spawner.runs.filter(({ live }) => live)).toEqual([]);
});

it("what ends while a boot is still starting plugins is started again after them", async () => {
  const templates = { Plain: { restart: { backoff: { min: "0ms" } } } };
  const shared = { state: memoryJournalState(), spawner: memorySpawner(), templates };
  const first = await started(shared);
  await running(first, "a");
  await first.stop({ agents: "keep", reason: "a new daemon comes" });
  let isStarted = false;
  const slow = definePlugin({
    name: "slow",
    apiVersion: 1,
    options: z.strictObject({}),
    setup(ctx) {
      ctx.hooks.beforeSpawn.tap("look", (spec) => {
        if (!isStarted) throw new Error("asked before it was started");
        return spec;
      });
      return {
        async start() {
          shared.spawner.run("a").end({ kind: "exited", code: 1 });
          // As long as anything that follows from that at once would take.
          for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
          isStarted = true;
        },
      };
    },
  })();
  const second = await started({ ...shared, plugins: [slow] });
  const agent = await second.agents.wait("a", "ready");
  expect(agent).toMatchObject({ state: "running", restarts: 1, last_exit: { kind: "exited", code: 1 } });
});
