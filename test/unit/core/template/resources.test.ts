import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { definePlugin, type LimitReport } from "../../../../core/index.js";
import { memoryJournalState, memorySpawner } from "../../../contract/memory-plugins.js";
import { createTestKernel, type TestKernel, type TestKernelOptions } from "../../../contract/test-kernel.js";
import { sectionsPlugin } from "../../../helpers/built-in-sections.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";
import { templateLanguage } from "../../../helpers/template-language.js";

const operator = { actor: "operator", reason: "a test" };
const policy = {
  actor: "plugin:fixture",
  reason: "memory 2 GiB over memory_max 1 GiB",
  cause: "policy",
} as const;
const kernels: TestKernel[] = [];

afterEach(async () => {
  for (const kernel of kernels.splice(0)) await kernel.stop({ agents: "keep", reason: "the test is over" });
});

async function started(options: TestKernelOptions = {}): Promise<TestKernel> {
  const plugins = [sectionsPlugin({ names: ["resources"] }), ...(options.plugins ?? [])];
  const kernel = createTestKernel({ ...options, plugins });
  kernels.push(kernel);
  await kernel.start();
  return kernel;
}

async function running(kernel: TestKernel, template_id: string) {
  await kernel.control.create({ agent_id: "a", template_id }, operator);
  return kernel.agents.wait("a", "settled");
}

const parse = (resources: object) =>
  templateLanguage.parse({
    template_id: "T",
    revision: "1",
    origin: "fixture",
    document: { template_id: "T", command: "/bin/true", resources },
  }).template.resources;

describe("the section resources", () => {
  it("is bytes, percent, numbers and milliseconds", () => {
    expect(
      parse({
        memory_max: "1.5GiB",
        cpu_max: "12.5%",
        pids_max: 1,
        open_files_max: 16,
        run_time_max: "30m",
        idle_max: "1h",
        on_exceed: { memory_max: "stop", cpu_max: "throttle" },
      }),
    ).toEqual({
      memory_max: 1.5 * 2 ** 30,
      cpu_max: 12.5,
      pids_max: 1,
      open_files_max: 16,
      run_time_max: 1_800_000,
      idle_max: 3_600_000,
      on_exceed: { memory_max: "stop", cpu_max: "throttle" },
    });
  });

  it.each([
    [{ memory_max: "1023KiB" }, "resources.memory_max: expected at least 1MiB"],
    [{ memory_max: 1024 }, "resources.memory_max: expected string, received number"],
    [{ memory_max: "much" }, "resources.memory_max: expected a size with its unit"],
    [{ cpu_max: "150" }, "resources.cpu_max: expected a share of one core"],
    [{ cpu_max: "0.5%" }, "resources.cpu_max: expected at least 1%"],
    [{ cpu_max: "-5%" }, "resources.cpu_max: expected a share of one core"],
    [{ pids_max: 0 }, "resources.pids_max: expected a number of at least 1"],
    [{ pids_max: 1.5 }, "resources.pids_max: expected a whole number"],
    [{ open_files_max: 3 }, "resources.open_files_max: expected a number of at least 16"],
    [{ run_time_max: "0s" }, "resources.run_time_max: expected more than nothing"],
    [{ idle_max: "soon" }, "resources.idle_max: expected a duration with its unit"],
    [{ on_exceed: "explode" }, 'resources.on_exceed: expected one of "warn", "stop", "restart"'],
    [
      { on_exceed: { memory_max: "throttle" } },
      'resources.on_exceed.memory_max: expected one of "warn", "stop", "restart"',
    ],
    [{ memory_mx: "1GiB" }, 'unknown key "resources.memory_mx" (did you mean "memory_max"?)'],
    [{ on_exceed: { open_files_max: "stop" } }, 'unknown key "resources.on_exceed.open_files_max"'],
  ])("refuses %j", (resources, message) => {
    expect(() => parse(resources)).toThrow(message);
  });
});

describe("the limits of a run", () => {
  const config = {
    defaults: { resources: { memory_max: "1GiB", idle_max: "1h", on_exceed: { idle_max: "warn" } } },
  } as const;
  const templates = {
    Plain: {},
    Own: {
      resources: {
        memory_max: "2MiB",
        cpu_max: "50%",
        run_time_max: "1m",
        on_exceed: { memory_max: "stop" },
      },
    },
    AllWarn: { resources: { memory_max: "2MiB", cpu_max: "50%", pids_max: 5, on_exceed: "warn" } },
    AllRestart: { resources: { cpu_max: "50%", pids_max: 5, open_files_max: 99, on_exceed: "restart" } },
  };

  it("are the template's, then the config's, with what is done about each", async () => {
    const kernel = await started({ config, templates });
    expect((await running(kernel, "Own")).limits).toEqual({
      memory_max: { value: 2 ** 21, held_by: "polling", on_exceed: "stop" },
      cpu_max: { value: 50, held_by: "polling", on_exceed: "throttle" },
      run_time_max: { value: 60, held_by: "polling", on_exceed: "stop" },
      idle_max: { value: 3_600, held_by: "polling", on_exceed: "warn" },
    });
  });

  it("are absent where nobody set any", async () => {
    const kernel = await started({ templates });
    expect((await running(kernel, "Plain")).limits).toBeUndefined();
  });

  it("are held by the operating system where its means are no harsher than what was asked for", async () => {
    const seen: object[] = [];
    for (const id of ["Own", "AllWarn", "AllRestart"]) {
      const kernel = await started({ templates, spawner: memorySpawner({ holds: true }) });
      const { limits = {} } = await running(kernel, id);
      seen.push(Object.fromEntries(Object.entries(limits).map(([name, { held_by }]) => [name, held_by])));
    }
    expect(seen).toEqual([
      { memory_max: "kernel", cpu_max: "kernel", run_time_max: "polling" },
      { memory_max: "polling", cpu_max: "polling", pids_max: "kernel" },
      { cpu_max: "polling", pids_max: "kernel", open_files_max: "kernel" },
    ]);
  });

  it("are told again after an adoption, by what holds then", async () => {
    const state = memoryJournalState();
    const spawner = memorySpawner({ holds: true });
    const first = await started({ templates, state, spawner });
    const { limits, run_id } = await running(first, "Own");
    await first.stop({ agents: "keep", reason: "a restart" });
    const second = await started({ templates, state, spawner });
    expect(second.agents.get("a")).toMatchObject({ run_id, limits });
    await second.stop({ agents: "keep", reason: "a restart" });
    // The next spawner finds that nothing is held any more.
    const forgetful = {
      ...spawner,
      adopt: async (spec: Parameters<typeof spawner.adopt>[0]) => {
        const adopted = await spawner.adopt(spec);
        return adopted.handle ? { handle: { ...adopted.handle, held: {} } } : adopted;
      },
    };
    const third = await started({ templates, state, spawner: forgetful });
    expect(third.agents.get("a")?.limits?.memory_max).toMatchObject({ value: 2 ** 21, held_by: "polling" });
  });
});

describe("commands about resources", () => {
  const types = (kernel: TestKernel) => kernel.state.events.map(({ type }) => type);

  it("throttle: done, shown, journaled, kept over an adoption, and over with the run", async () => {
    const state = memoryJournalState();
    const spawner = memorySpawner();
    const kernel = await started({ state, spawner });
    const { run_id = "" } = await running(kernel, "Plain");
    const agent = await kernel.control.throttle("a", 25, { ...operator, run_id });
    const shown = { percent: 25, by: "quota", ...operator };
    expect(agent.throttle).toEqual(shown);
    expect(spawner.run("a").throttledTo).toBe(25);
    expect(state.events.at(-1)).toMatchObject({ type: "agent.throttled", run_id, data: shown });
    await kernel.stop({ agents: "keep", reason: "a restart" });
    const second = await started({ state, spawner });
    expect(second.agents.get("a")?.throttle).toEqual(shown);
    expect((await second.control.throttle("a", undefined, operator)).throttle).toBeUndefined();
    expect(spawner.run("a").throttledTo).toBeUndefined();
    await second.control.throttle("a", 10, operator);
    spawner.run("a").end({ kind: "exited", code: 0 });
    expect((await second.agents.wait("a", "ended")).throttle).toBeUndefined();
  });

  it("throttle: refuses what is no share, a run that is over changes nothing, nor does a stale one", async () => {
    const kernel = await started();
    await running(kernel, "Plain");
    for (const bad of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
      await expect(kernel.control.throttle("a", bad, operator)).rejects.toMatchObject({
        code: "input_invalid",
      });
    }
    await kernel.control.throttle("a", 10, { ...operator, run_id: "another" });
    expect(kernel.spawner.run("a").throttledTo).toBeUndefined();
    await kernel.control.stop("a", operator);
    await kernel.agents.wait("a", "ended");
    await expect(kernel.control.throttle("a", 10, operator)).rejects.toMatchObject({
      code: "agent_not_running",
    });
    expect(types(kernel)).not.toContain("agent.throttled");
  });

  it("throttle: says so where the spawner cannot", async () => {
    const spawner = memorySpawner();
    const plain: typeof spawner = {
      ...spawner,
      spawn: async (spec, commit) => {
        const { throttle: _, ...handle } = await spawner.spawn(spec, commit);
        return handle;
      },
    };
    const kernel = await started({ spawner: plain });
    await running(kernel, "Plain");
    await expect(kernel.control.throttle("a", 10, operator)).rejects.toMatchObject({
      code: "throttle_unavailable",
    });
  });

  it("restart by a policy is a failure of the run: counted, and given up on", async () => {
    const kernel = await started({
      templates: { Plain: { restart: { max_restarts: 2, backoff: { min: "0s" } } } },
    });
    await running(kernel, "Plain");
    for (const restarts of [1, 2]) {
      const { run_id = "" } = kernel.agents.get("a") ?? {};
      await kernel.control.restart("a", { ...policy, run_id });
      await kernel.control.restart("a", { ...policy, run_id });
      const next = await kernel.agents.wait("a", "settled");
      expect(next).toMatchObject({
        state: "running",
        restarts,
        last_exit: { cause: "policy", success: false },
      });
      expect(next.last_exit?.reason).toMatch(/^memory 2 GiB over memory_max 1 GiB; it /);
    }
    await kernel.control.restart("a", policy);
    expect(await kernel.agents.wait("a", "ended")).toMatchObject({ state: "failed", restarts: 2 });
  });

  it("why it was stopped is still told when its backoff ends meanwhile", async () => {
    const clock = createFakeClock();
    let leave = () => {};
    const left = new Promise<void>((resolve) => {
      leave = resolve;
    });
    const stops = definePlugin({
      name: "fixture-stops",
      apiVersion: 1,
      options: z.strictObject({}),
      setup: (ctx) =>
        ctx.hooks.afterExit.tap("stop it", async ({ agent }) => {
          await ctx.control.stop(agent.agent_id, policy);
          await left;
        }),
    });
    const kernel = await started({ clock, plugins: [stops()] });
    await running(kernel, "Plain");
    kernel.spawner.run("a").end({ kind: "exited", code: 1 });
    await clock.advance(5_000);
    leave();
    const { state, reason } = await kernel.agents.wait("a", "ended");
    expect([state, reason]).toEqual(["stopped", policy.reason]);
  });

  it("a limit that was exceeded is journaled, by a policy and by the operating system", async () => {
    const kernel = await started({
      templates: { Plain: { resources: { pids_max: 5 } } },
      spawner: memorySpawner({ holds: true }),
    });
    const { run_id = "" } = await running(kernel, "Plain");
    const report: LimitReport = {
      limit: "pids_max",
      value: 5,
      action: "refuse",
      reason: "more were refused",
    };
    kernel.spawner.run("a").limit(report);
    await kernel.reports.limit("a", run_id, { ...report, action: "warn", measured: 6, actor: "plugin:x" });
    await kernel.reports.limit("a", "another run", { ...report, actor: "plugin:x" });
    const told = kernel.state.events.filter(({ type }) => type === "agent.limit").map(({ data }) => data);
    expect(told).toEqual([
      { ...report, actor: "daemon", held_by: "kernel" },
      { ...report, action: "warn", measured: 6, actor: "plugin:x", held_by: "kernel" },
    ]);
    expect(kernel.agents.get("a")?.state).toBe("running");
  });
});
