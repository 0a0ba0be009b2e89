import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import {
  type ConfiguredPlugin,
  definePlugin,
  type OpenStarryError,
  type PluginContext,
  SpawnDeferred,
  SpawnVetoed,
  spawner as spawnerSlot,
} from "../../../core/index.js";
import { memoryJournalState, memorySpawner } from "../../contract/memory-plugins.js";
import { createTestKernel, type TestKernel, type TestKernelOptions } from "../../contract/test-kernel.js";
import { createFakeClock } from "../../helpers/fake-clock.js";
import { waitFor } from "../../helpers/wait-for.js";

const operator = { actor: "operator", reason: "a test" };
const kernels: TestKernel[] = [];

/** A started kernel that is stopped when the test is over. */
async function started(options: TestKernelOptions = {}): Promise<TestKernel> {
  const kernel = createTestKernel(options);
  kernels.push(kernel);
  await kernel.start();
  return kernel;
}

afterEach(async () => {
  for (const kernel of kernels.splice(0)) await kernel.stop({ agents: "keep", reason: "the test is over" });
});

function plugin(
  name: string,
  setup: (ctx: PluginContext) => ReturnType<Parameters<typeof definePlugin>[0]["setup"]>,
): ConfiguredPlugin {
  return definePlugin({ name, apiVersion: 1, options: z.strictObject({}), setup })();
}

describe("the life of an agent", () => {
  it("starts, says what it is, stops, and is kept", async () => {
    const kernel = await started();
    await kernel.control.create({ agent_id: "a", template_id: "Plain", labels: { team: "x" } }, operator);
    const running = await kernel.agents.wait("a", "ready");
    expect(running).toMatchObject({
      state: "running",
      desired: "running",
      restarts: 0,
      labels: { team: "x" },
      pid: 100_000,
    });
    expect(running.run_id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7/);
    await kernel.control.stop("a", { ...operator, reason: "enough" });
    const stopped = await kernel.agents.wait("a", "ended");
    expect(stopped).toMatchObject({ state: "stopped", desired: "stopped" });
    expect(stopped.pid).toBeUndefined();
    expect(stopped.last_exit).toMatchObject({
      kind: "exited",
      code: 0,
      cause: "stop_request",
      actor: "operator",
      success: true,
    });
    expect(stopped.last_exit?.reason).toBe("enough; it exited with code 0");
  });

  it("is created once, whoever asks at the same time", async () => {
    const kernel = await started();
    const asked = Array.from({ length: 50 }, () =>
      kernel.control.create({ agent_id: "one", template_id: "Plain" }, operator),
    );
    const answers = await Promise.allSettled(asked);
    expect(answers.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    const refused = answers.flatMap((answer) => (answer.status === "rejected" ? [answer.reason.code] : []));
    expect(new Set(refused)).toEqual(new Set(["agent_exists"]));
    await kernel.agents.wait("one", "ready");
    expect(kernel.spawner.runs).toHaveLength(1);
  });

  it("restarts after a failure, counted, with another run", async () => {
    const clock = createFakeClock();
    const kernel = await started({ clock });
    await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
    const first = await kernel.agents.wait("a", "ready");
    kernel.spawner.run("a").end({ kind: "signaled", signal: "SIGKILL" });
    await kernel.agents.wait("a", "settled");
    await clock.advance(0);
    expect(kernel.agents.get("a")).toMatchObject({ state: "backoff", restarts: 1 });
    expect(kernel.agents.get("a")?.next_start_at).toBeDefined();
    await clock.advance(1_000);
    const second = await kernel.agents.wait("a", "ready");
    expect(second.run_id).not.toBe(first.run_id);
    expect(second.last_exit).toMatchObject({
      kind: "signaled",
      signal: "SIGKILL",
      cause: "self",
      actor: "agent:a",
      success: false,
    });
  });

  it("gives up on a crash loop, and says so", async () => {
    const templates = { Crash: { restart: { policy: "always", max_restarts: 2, backoff: { min: "0ms" } } } };
    const kernel = await started({ templates });
    await kernel.control.create({ agent_id: "a", template_id: "Crash" }, operator);
    for (let run = 0; run < 3; run++) {
      await kernel.agents.wait("a", "ready");
      const current = kernel.spawner.runs.at(-1);
      current?.end({ kind: "exited", code: 3 });
      await kernel.agents.wait("a", "settled");
    }
    const failed = await kernel.agents.wait("a", "ended");
    expect(failed).toMatchObject({ state: "failed", desired: "running", restarts: 2 });
    expect(failed.reason).toContain("exited with code 3");
    expect(failed.reason).toContain("2 restarts are enough");
  });

  it("ends by itself and stays ended when its rules say so", async () => {
    const kernel = await started();
    await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
    await kernel.agents.wait("a", "ready");
    kernel.spawner
      .run("a")
      .end({ status: { kind: "exited", code: 0 }, result: '{"answer":42}', outputTail: "done" });
    const ended = await kernel.agents.wait("a", "ended");
    expect(ended).toMatchObject({ state: "exited", desired: "running" });
    expect(ended.last_exit).toMatchObject({ success: true, output_tail: "done" });
    expect(await kernel.journal.runs("a", 5)).toMatchObject([{ agent_id: "a", result: '{"answer":42}' }]);
  });

  it("is started again by hand, as a new run, with the newest template", async () => {
    const templates: Record<string, Record<string, unknown>> = { T: { args: ["old"] } };
    const kernel = await started({ templates });
    await kernel.control.create({ agent_id: "a", template_id: "T" }, operator);
    const before = await kernel.agents.wait("a", "ready");
    templates["T"] = { args: ["newer"] };
    await kernel.control.restart("a", operator);
    await kernel.agents.wait("a", "settled");
    const after = await kernel.agents.wait("a", "ready");
    expect(after.run_id).not.toBe(before.run_id);
    expect(after.template_revision).not.toBe(before.template_revision);
    expect(after.restarts).toBe(0);
    expect(kernel.spawner.runs.at(-1)?.spec).toMatchObject({ args: ["newer"] });
  });

  it("is forgotten when it is deleted", async () => {
    const kernel = await started();
    await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
    await kernel.agents.wait("a", "ready");
    await kernel.control.remove("a", operator);
    const last = await kernel.agents.wait("a", "gone").catch((error: OpenStarryError) => error.code);
    expect(last === "agent_not_found" || (last as { state: string }).state === "stopped").toBe(true);
    expect(kernel.agents.get("a")).toBeUndefined();
    expect(kernel.state.agents.size).toBe(0);
    expect(kernel.state.events.map(({ type }) => type)).toContain("agent.deleted");
  });

  it("lets the latest wish win", async () => {
    const kernel = await started({ spawner: memorySpawner({ stubborn: ["a"] }) });
    await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
    await kernel.agents.wait("a", "ready");
    await kernel.control.stop("a", operator);
    await waitFor(() => kernel.agents.get("a")?.state === "stopping", { what: "the stop to begin" });
    await kernel.control.start("a", operator);
    kernel.spawner.runs[0]?.end({ kind: "exited", code: 0 });
    const again = await kernel.agents.wait("a", "ready");
    expect(again.pid).toBe(100_001);
    expect(kernel.spawner.runs).toHaveLength(2);
  });

  it("never has two live runs, whatever is asked in whatever order", async () => {
    const kernel = await started();
    await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
    const verbs = ["restart", "stop", "start", "restart", "start", "stop", "restart"] as const;
    for (let round = 0; round < 30; round++) {
      await Promise.all(verbs.map((verb) => kernel.control[verb]("a", operator)));
      expect(kernel.spawner.runs.filter((run) => run.live).length).toBeLessThanOrEqual(1);
    }
    await kernel.control.start("a", operator);
    const last = await kernel.agents.wait("a", "ready");
    expect(kernel.spawner.runs.filter((run) => run.live).map(({ pid }) => pid)).toEqual([last.pid]);
  });
});

describe("readiness", () => {
  const templates = { Slow: { readiness: { type: "test", timeout: "5s" }, restart: { max_restarts: 0 } } };
  const probe = plugin("probe-test", (ctx) => {
    ctx.provide(
      { name: "probe", arity: "many", id: Symbol.for("openstarry.slot.probe") },
      { name: "test", roles: ["readiness"], options: z.strictObject({}), watch() {} },
    );
  });

  it("holds an agent in starting until it is marked ready", async () => {
    const kernel = await started({ templates, plugins: [probe] });
    await kernel.control.create({ agent_id: "a", template_id: "Slow" }, operator);
    const agent = await kernel.agents.wait("a", "launched");
    expect(agent.state).toBe("starting");
    await kernel.reports.ready("a", "another-run");
    expect(kernel.agents.get("a")?.state).toBe("starting");
    await kernel.reports.ready("a", agent.run_id ?? "");
    expect(kernel.agents.get("a")?.state).toBe("running");
  });

  it("counts a readiness timeout as a failure", async () => {
    const clock = createFakeClock();
    const kernel = await started({ templates, plugins: [probe], clock });
    await kernel.control.create({ agent_id: "a", template_id: "Slow" }, operator);
    await kernel.agents.wait("a", "launched");
    await clock.advance(5_000);
    const failed = await kernel.agents.wait("a", "ended");
    expect(failed.state).toBe("failed");
    expect(failed.last_exit).toMatchObject({ cause: "start_timeout", success: false, actor: "daemon" });
  });
});

describe("hooks", () => {
  it("lets beforeSpawn change a start, but not who is started", async () => {
    const tap = plugin("tap", (ctx) => {
      ctx.hooks.beforeSpawn.tap("arguments", (spec) => ({
        ...spec,
        agentId: "other",
        args: [...spec.args, "--more"],
        env: { ...spec.env, EXTRA: "1", OPENSTARRY_AGENT_ID: "other" },
      }));
      ctx.hooks.beforeSpawn.tap("nothing", () => undefined);
    });
    const kernel = await started({ plugins: [tap] });
    await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
    await kernel.agents.wait("a", "ready");
    expect(kernel.spawner.run("a").spec).toMatchObject({
      agentId: "a",
      args: ["--more"],
      env: { EXTRA: "1", OPENSTARRY_AGENT_ID: "a" },
    });
  });

  it("fails an agent that a policy vetoes, and puts one off that it defers", async () => {
    const clock = createFakeClock();
    let full = true;
    const policy = plugin("policy", (ctx) => {
      ctx.hooks.beforeSpawn.tap("judge", async (spec) => {
        if (spec.agentId === "never") throw new SpawnVetoed("not on Sundays");
        if (full) throw new SpawnDeferred("the house is full", { retryAfterMs: 2_000 });
        return spec;
      });
    });
    const kernel = await started({ plugins: [policy], clock });
    await kernel.control.create({ agent_id: "never", template_id: "Plain" }, operator);
    const vetoed = await kernel.agents.wait("never", "ended");
    expect(vetoed).toMatchObject({ state: "failed", last_exit: { kind: "spawn_failed", cause: "policy" } });
    expect(vetoed.reason).toContain("not on Sundays");
    await kernel.control.create({ agent_id: "later", template_id: "Plain" }, operator);
    expect(await kernel.agents.wait("later", "launched")).toMatchObject({
      state: "pending",
      reason: "the house is full",
      next_start_at: "2026-01-01T00:00:02.000Z",
    });
    full = false;
    await clock.advance(2_000);
    expect((await kernel.agents.wait("later", "ready")).state).toBe("running");
  });

  it("goes on when an observer throws or never settles, and names it", async () => {
    const clock = createFakeClock();
    const bad = plugin("bad", (ctx) => {
      ctx.hooks.afterSpawn.tap("throws", () => {
        throw new Error("boom");
      });
      ctx.hooks.afterExit.tap("hangs", () => new Promise(() => {}));
    });
    const seen: string[] = [];
    const good = plugin("good", (ctx) => {
      ctx.hooks.afterSpawn.tap("note", ({ agent }) => void seen.push(`spawn ${agent.agent_id}`));
      ctx.hooks.afterExit.tap("note", ({ run }) => void seen.push(`exit ${run.exit.kind}`));
    });
    const kernel = await started({ plugins: [bad, good], clock });
    await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
    await kernel.agents.wait("a", "ready");
    kernel.spawner.run("a").end({ kind: "exited", code: 0 });
    await clock.advance(10_000);
    await kernel.agents.wait("a", "ended");
    expect(seen).toEqual(["spawn a", "exit exited"]);
    const degraded = kernel.plugins().find(({ name }) => name === "bad");
    expect(degraded).toMatchObject({ state: "degraded" });
    expect(degraded?.problem).toContain('plugin bad, hook afterExit, tap "hangs"');
    expect(kernel.status().problems.join()).toContain("bad");
  });

  it("tells of a run that ended while no daemon lived, once more if it was not told to the end", async () => {
    const state = memoryJournalState();
    const spawner = memorySpawner();
    const never = plugin("never", (ctx) => ctx.hooks.afterExit.tap("hangs", () => new Promise(() => {})));
    const first = await started({ state, spawner, plugins: [never] });
    await first.control.create({ agent_id: "a", template_id: "Plain" }, operator);
    const { run_id } = await first.agents.wait("a", "ready");
    spawner.run("a").end({ kind: "exited", code: 0 });
    // The tap hangs: as if the daemon had died here.
    const told: string[] = [];
    const good = plugin("good", (ctx) =>
      ctx.hooks.afterExit.tap("note", (event) => void told.push(event.run_id)),
    );
    const second = await started({ state, spawner, plugins: [good] });
    await second.agents.wait("a", "ended");
    expect(told).toEqual([run_id]);
  });
});

describe("a daemon that comes back", () => {
  it("adopts what lives: same run, same pid, no restart counted", async () => {
    const state = memoryJournalState();
    const spawner = memorySpawner();
    const first = await started({ state, spawner });
    await first.control.create({ agent_id: "a", template_id: "Plain" }, operator);
    const before = await first.agents.wait("a", "ready");
    await first.stop({ agents: "keep", reason: "as if killed" });
    const second = await started({ state, spawner });
    expect(second.agents.get("a")).toMatchObject({
      run_id: before.run_id,
      pid: before.pid,
      state: "running",
      restarts: 0,
    });
    expect(spawner.runs).toHaveLength(1);
  });

  it("leaves what it cannot take over alone, says so, and supervises the rest", async () => {
    const state = memoryJournalState();
    const spawner = memorySpawner();
    const first = await started({ state, spawner });
    for (const id of ["a", "b"]) await first.control.create({ agent_id: id, template_id: "Plain" }, operator);
    await Promise.all(["a", "b"].map((id) => first.agents.wait(id, "ready")));
    await first.stop({ agents: "keep", reason: "as if killed" });
    const record = state.agents.get("a");
    if (record) record.agent.spawner = "gone";
    const second = await started({ state, spawner });
    expect(second.agents.list().map(({ agent_id }) => agent_id)).toEqual(["b"]);
    expect(second.status().problems.join()).toContain("agent a could not be taken over");
    const again = second.control.create({ agent_id: "a", template_id: "Plain" }, operator);
    await expect(again).rejects.toMatchObject({ code: "agent_exists" });
    expect(spawner.runs.filter((run) => run.live)).toHaveLength(2);
  });

  it("learns how the dead died, and restarts them", async () => {
    const state = memoryJournalState();
    const spawner = memorySpawner();
    const templates = { Plain: { restart: { backoff: { min: "0ms" } } } };
    const first = await started({ state, spawner, templates });
    await first.control.create({ agent_id: "a", template_id: "Plain" }, operator);
    await first.agents.wait("a", "ready");
    await first.stop({ agents: "keep", reason: "as if killed" });
    spawner.run("a").end({ kind: "exited", code: 7 });
    const second = await started({ state, spawner, templates });
    const agent = await second.agents.wait("a", "ready");
    expect(agent).toMatchObject({ restarts: 1, last_exit: { kind: "exited", code: 7 } });
    expect(spawner.runs).toHaveLength(2);
  });

  it("ends its agents in waves, and starts them again, uncounted", async () => {
    const state = memoryJournalState();
    const spawner = memorySpawner();
    const templates = { Parent: {}, Plain: {}, Needs: { requires: ["agent:parent"] } };
    const first = await started({ state, spawner, templates });
    await first.control.create({ agent_id: "parent", template_id: "Parent" }, operator);
    await first.control.create({ agent_id: "child", template_id: "Plain", parent_id: "parent" }, operator);
    await first.control.create({ agent_id: "needs", template_id: "Needs" }, operator);
    await Promise.all(["parent", "child", "needs"].map((id) => first.agents.wait(id, "ready")));
    await first.stop({ agents: "stop", reason: "maintenance" });
    const ended = state.events.filter(({ type }) => type === "agent.exited").map(({ agent_id }) => agent_id);
    expect(ended.at(-1)).toBe("parent");
    expect(ended).toHaveLength(3);
    const second = await started({ state, spawner, templates });
    for (const id of ["parent", "child", "needs"]) {
      expect(await second.agents.wait(id, "ready")).toMatchObject({
        restarts: 0,
        last_exit: { cause: "daemon_stop" },
      });
    }
  });

  it("kills what takes too long to stop: over the budget, or told so", async () => {
    for (const how of ["budget", "signal"] as const) {
      const clock = createFakeClock();
      const spawner = memorySpawner({ stubborn: ["a"] });
      const kernel = createTestKernel({ spawner, clock, limits: { stopBudgetMs: 30_000 } });
      await kernel.start();
      await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
      await kernel.agents.wait("a", "ready");
      const abort = new AbortController();
      const stopped = kernel.stop({ agents: "stop", reason: "maintenance", signal: abort.signal });
      await waitFor(() => spawner.run("a").signals.length === 1, { what: "the polite request" });
      if (how === "signal") abort.abort();
      else await clock.advance(30_000);
      await stopped;
      expect(spawner.run("a").signals).toEqual(["SIGTERM", "SIGKILL"]);
    }
  });

  it("does not start what was stopped, has exited or has failed", async () => {
    const state = memoryJournalState();
    const spawner = memorySpawner();
    const first = await started({ state, spawner });
    for (const id of ["stopped", "exited"])
      await first.control.create({ agent_id: id, template_id: "Plain" }, operator);
    await Promise.all(["stopped", "exited"].map((id) => first.agents.wait(id, "ready")));
    await first.control.stop("stopped", operator);
    spawner.run("exited").end({ kind: "exited", code: 0 });
    await Promise.all(["stopped", "exited"].map((id) => first.agents.wait(id, "ended")));
    await first.stop({ agents: "stop", reason: "maintenance" });
    const second = await started({ state, spawner });
    expect(second.agents.list().map(({ state }) => state)).toEqual(["stopped", "exited"]);
    expect(spawner.runs).toHaveLength(2);
  });

  it("starts the master first, after only what it requires, and brings deleted config agents back", async () => {
    const templates = { Master: { requires: ["agent:store"] }, Plain: {} };
    const config = {
      agents: [
        { agent_id: "master", template_id: "Master" },
        { agent_id: "other", template_id: "Plain" },
        { agent_id: "store", template_id: "Plain" },
      ],
    };
    const state = memoryJournalState();
    const first = await started({ templates, config, state });
    await Promise.all(["master", "other", "store"].map((id) => first.agents.wait(id, "ready")));
    await first.control.remove("other", operator);
    await first.agents.wait("other", "gone").catch(() => {});
    await first.stop({ agents: "stop", reason: "over" });
    const second = await started({ templates, config, state });
    expect((await second.agents.wait("other", "ready")).state).toBe("running");
  });
});

describe("heartbeats", () => {
  it("are history only when they say something new, and always told to listeners", async () => {
    const heard: unknown[] = [];
    const ear = plugin("ear", (ctx) => {
      ctx.events.on("agent.heartbeat", ({ data }) => void heard.push(data));
    });
    const kernel = await started({ plugins: [ear] });
    await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
    const { run_id = "" } = await kernel.agents.wait("a", "ready");
    for (const status of ["thinking", "thinking", "done"])
      await kernel.reports.heartbeat("a", run_id, { status });
    expect(heard).toEqual([{ status: "thinking" }, { status: "thinking" }, { status: "done" }]);
    expect(kernel.state.events.filter(({ type }) => type === "agent.heartbeat")).toHaveLength(2);
    await kernel.reports.heartbeat("a", run_id, { status: "later" }, { later: true });
    expect(kernel.agents.get("a")?.status).toBe("later");
    expect(heard.at(-1)).toEqual({ status: "later" });
    const written = () => kernel.state.events.filter(({ type }) => type === "agent.heartbeat");
    expect(written()).toHaveLength(2);
    for (let twice = 0; twice < 2; twice++) await kernel.reports.heartbeat("a", run_id, { status: "later" });
    expect(written().map(({ data }) => (data as { status?: string }).status)).toEqual([
      "thinking",
      "done",
      "later",
    ]);
    await expect(kernel.reports.heartbeat("a", "another-run", {})).rejects.toMatchObject({
      code: "run_is_over",
    });
  });
});

describe("requirements", () => {
  it("waits for a required agent, says for what, and goes on by itself", async () => {
    const templates = { Needs: { requires: ["agent:base"] }, Plain: {} };
    const kernel = await started({ templates });
    await kernel.control.create({ agent_id: "needs", template_id: "Needs" }, operator);
    expect(await kernel.agents.wait("needs", "launched")).toMatchObject({
      state: "pending",
      reason: "waits for agent:base, which does not exist",
    });
    await kernel.control.create({ agent_id: "base", template_id: "Plain" }, operator);
    expect((await kernel.agents.wait("needs", "ready")).state).toBe("running");
  });

  it("refuses a service that nobody provides", async () => {
    const kernel = await started({ templates: { Needs: { requires: ["bus"] } } });
    const refused = kernel.control.create({ agent_id: "a", template_id: "Needs" }, operator);
    await expect(refused).rejects.toMatchObject({
      code: "template_invalid",
      message: expect.stringContaining('"bus"'),
    });
  });
});

describe("when the journal cannot be written", () => {
  it("refuses to create, leaves nothing behind, and still stops what runs", async () => {
    const kernel = await started();
    await kernel.control.create({ agent_id: "a", template_id: "Plain" }, operator);
    await kernel.agents.wait("a", "ready");
    kernel.state.broken = true;
    await expect(
      kernel.control.create({ agent_id: "b", template_id: "Plain" }, operator),
    ).rejects.toMatchObject({
      code: "journal_unavailable",
    });
    expect(kernel.agents.get("b")).toBeUndefined();
    await kernel.control.stop("a", operator).catch(() => {});
    await kernel.agents.wait("a", "ended");
    expect(kernel.spawner.run("a").live).toBe(false);
    expect(kernel.status().problems.join()).toContain("journal");
  });
});

describe("plugins", () => {
  it("are started providers first and stopped in reverse, and a failed start undoes the others", async () => {
    const order: string[] = [];
    const noting = (name: string, fail = false) =>
      plugin(name, () => ({
        start: () => {
          order.push(`start ${name}`);
          if (fail) throw new Error("no luck");
        },
        stop: () => void order.push(`stop ${name}`),
      }));
    const kernel = createTestKernel({ plugins: [noting("one"), noting("two"), noting("three", true)] });
    await expect(kernel.start()).rejects.toMatchObject({
      code: "plugin_failed",
      message: expect.stringContaining("three"),
    });
    expect(order).toEqual(["start one", "start two", "start three", "stop three", "stop two", "stop one"]);
  });

  it("that never settle do not hold the daemon for ever", async () => {
    const clock = createFakeClock();
    const kernel = createTestKernel({
      clock,
      plugins: [plugin("hangs", () => ({ start: () => new Promise(() => {}) }))],
    });
    const start = kernel.start();
    const failed = expect(start).rejects.toMatchObject({ message: expect.stringContaining("hangs") });
    await clock.advance(15_000);
    await failed;
  });

  it("name an unknown slot's lack plainly", async () => {
    const kernel = await started();
    await expect(
      kernel.control.create({ agent_id: "a", template_id: "Plain2" }, operator),
    ).rejects.toMatchObject({
      code: "template_not_found",
    });
    expect(spawnerSlot.name).toBe("spawner");
  });
});
