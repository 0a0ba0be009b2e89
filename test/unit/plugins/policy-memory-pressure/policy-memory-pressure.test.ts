import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import {
  type ConfigInput,
  definePlugin,
  type ResourceFigures,
  sampler,
  type TemplateInput,
} from "../../../../core/index.js";
import hostPressure from "../../../../plugins/policy-memory-pressure/index.js";
import { parseMeminfo, parsePsi } from "../../../../plugins/policy-memory-pressure/memory-reading.js";
import probeHeartbeat from "../../../../plugins/probe-heartbeat/index.js";
import healthChecker from "../../../../plugins/probe-runner/index.js";
import samplerRunner from "../../../../plugins/sampler-runner/index.js";
import { type MemorySpawner, memoryJournalState, memorySpawner } from "../../../contract/memory-plugins.js";
import { createTestKernel, type TestKernel } from "../../../contract/test-kernel.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";

const SECOND = 1_000;
const operator = { actor: "operator", reason: "a test" };
const kernels: TestKernel[] = [];
const folders: string[] = [];

afterEach(async () => {
  for (const kernel of kernels.splice(0)) await kernel.stop({ agents: "keep", reason: "the test is over" });
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

const psiText = (some: number, full: number) =>
  `some avg10=${some.toFixed(2)} avg60=0.02 avg300=0.01 total=766873\nfull avg10=${full.toFixed(2)} avg60=0.01 avg300=0.00 total=34276\n`;
const meminfoText = (percent: number) =>
  `MemTotal:       10000000 kB\nMemFree:          500000 kB\nMemAvailable:   ${Math.round(percent * 100_000)} kB\nBuffers:           40728 kB\n`;

/** What a machine says of its memory, in files that a test writes. */
function fixtureMachine() {
  const folder = mkdtempSync(join(tmpdir(), "hp-"));
  folders.push(folder);
  const files = { psi_file: join(folder, "psi"), meminfo_file: join(folder, "meminfo") };
  return {
    files,
    /** In percent. Absent: there is no such file. */
    says(
      { some = 0, full = 0, available }: { some?: number; full?: number; available?: number },
      psi = true,
    ) {
      rmSync(files.psi_file, { force: true });
      rmSync(files.meminfo_file, { force: true });
      if (psi) writeFileSync(files.psi_file, psiText(some, full));
      if (available !== undefined) writeFileSync(files.meminfo_file, meminfoText(available));
    },
  };
}

interface Setting {
  templates?: Record<string, Partial<TemplateInput>>;
  options?: Record<string, unknown>;
  config?: ConfigInput;
  spawner?: MemorySpawner;
  state?: ReturnType<typeof memoryJournalState>;
  machine?: ReturnType<typeof fixtureMachine>;
  /** What the agents use, by id, in percent of a core. */
  cpu?: Record<string, number>;
}

async function started({ templates = {}, options = {}, config = {}, cpu = {}, ...more }: Setting = {}) {
  const clock = createFakeClock();
  const machine = more.machine ?? fixtureMachine();
  if (!more.machine) machine.says({ available: 50 });
  const spawner = more.spawner ?? memorySpawner();
  const state = more.state ?? memoryJournalState();
  const figures = (id: string): ResourceFigures => ({
    cpu_percent: cpu[id] ?? 0,
    cpu_ms: 0,
    memory_bytes: 1,
    processes: 1,
  });
  const measures = definePlugin({
    name: "fixture-sampler",
    apiVersion: 1,
    provides: [sampler],
    options: z.strictObject({}),
    setup: (ctx) =>
      ctx.provide(sampler, {
        name: "fixture",
        intervalMs: SECOND,
        sample: async (runs) => new Map(runs.map(({ agent_id, run_id }) => [run_id, figures(agent_id)])),
      }),
  });
  const serves = definePlugin({
    name: "fixture-service",
    apiVersion: 1,
    options: z.strictObject({}),
    setup: (ctx) => ({
      start: async () => void (await ctx.services.ensure("bus", { template: { command: "/bin/bus" } })),
    }),
  });
  const kernel = createTestKernel({
    clock,
    spawner,
    state,
    config,
    plugins: [
      samplerRunner(),
      measures(),
      healthChecker(),
      probeHeartbeat(),
      hostPressure({ ...machine.files, ...options }),
      serves(),
    ],
    templates: {
      Plain: {},
      High: { priority: 10 },
      Low: { priority: -10 },
      Pinned: { priority: 1000 },
      ...templates,
    },
  });
  kernels.push(kernel);
  await kernel.start();
  return {
    kernel,
    clock,
    machine,
    spawner,
    state,
    seconds: (count: number) => clock.advance(count * SECOND),
    async start(agent_id: string, template_id = "Plain") {
      await kernel.control.create({ agent_id, template_id }, operator);
      await kernel.agents.wait(agent_id, "launched");
    },
    stateOf: (id: string) => kernel.agents.get(id)?.state,
    reasonOf: (id: string) => kernel.agents.get(id)?.reason,
    /** The agents with a process, in the order of their starts. */
    running: () =>
      spawner.runs
        .filter(({ live }) => live)
        .map(({ spec }) => spec.agentId)
        .filter((id) => !id.startsWith("svc:")),
  };
}

describe("what the kernel says of memory", () => {
  it("is read from both files", () => {
    expect(parsePsi(psiText(12.34, 5))).toEqual({ some: 12.34, full: 5 });
    expect(parseMeminfo(meminfoText(25))).toEqual({ bytes: 2_500_000 * 1_024, percent: 25 });
  });

  it.each([
    "",
    "some avg10=x",
    "some avg10=1.00 avg60=0.00 avg300=0.00 total=1\n",
    "MemTotal: 0 kB\nMemAvailable: 0 kB\n",
  ])("is unknown where the file holds %j", (text) => {
    expect([parsePsi(text), parseMeminfo(text)]).toEqual([undefined, undefined]);
  });
});

describe("starts under memory pressure", () => {
  it.each([
    ["some of the tasks wait", "pending", { some: 20, available: 20 }],
    ["not that many do", "running", { some: 19.9, available: 20 }],
    [
      "they do, but there is plenty: a run is at its own limit",
      "running",
      { some: 90, full: 80, available: 60 },
    ],
    ["little is available", "pending", { available: 4.9 }],
    ["just enough is", "running", { available: 5 }],
  ] as const)("%s: it is %s", async (_, state, says) => {
    const it = await started();
    it.machine.says(says);
    await it.seconds(2);
    await it.start("a");
    await it.seconds(20);
    expect(it.stateOf("a")).toBe(state);
  });

  it("wait without a PSI file too, and without meminfo", async () => {
    const it = await started();
    it.machine.says({ available: 3 }, false);
    await it.seconds(2);
    await it.start("a");
    expect(it.stateOf("a")).toBe("pending");
    it.machine.says({ some: 50 });
    await it.seconds(60);
    expect(it.stateOf("a")).toBe("pending");
  });

  it("say why, with the figures, once; and so does the daemon", async () => {
    const it = await started();
    it.machine.says({ some: 34.5, available: 12 });
    await it.seconds(2);
    await it.start("a");
    const words =
      "memory pressure: PSI some is 34.5%, from 20% on (wait_some); 1.1GiB (12%) of memory is available";
    expect(it.reasonOf("a")).toBe(`waits: ${words}`);
    it.machine.says({ some: 60, available: 8 });
    await it.seconds(20);
    expect(it.kernel.status().problems).toEqual([`plugin policy-memory-pressure: ${words}`]);
    const told = it.state.events.filter((event) => event.type === "agent.state" && event.agent_id === "a");
    expect(told.map(({ data }) => (data as { reason?: string }).reason)).toEqual([`waits: ${words}`]);
  });

  it("go on when it has been calm for long enough, one after the other, the higher priority first", async () => {
    const it = await started({ options: { calm: "10s", spacing: "5s" } });
    it.machine.says({ available: 1 });
    await it.seconds(2);
    for (const id of ["a", "b", "c"]) await it.start(id);
    await it.start("high", "High");
    await it.start("low", "Low");
    it.machine.says({ available: 50 });
    await it.seconds(8);
    expect(it.running()).toEqual([]);
    await it.seconds(6);
    expect(it.running()).toEqual(["high"]);
    await it.seconds(6);
    expect(it.running()).toEqual(["high", "a"]);
    await it.seconds(24);
    expect(it.running()).toEqual(["high", "a", "b", "c", "low"]);
    expect(it.kernel.status().problems).toEqual([]);
    // Nobody waits any more: from now on none has to be apart from the next.
    for (const id of ["d", "e"]) await it.start(id);
    expect(it.running().slice(5)).toEqual(["d", "e"]);
  });

  it("automatic restarts included", async () => {
    const it = await started({ templates: { T: { restart: { backoff: { min: "1s" } } } } });
    await it.start("a", "T");
    it.machine.says({ available: 1 });
    await it.seconds(2);
    it.spawner.run("a").end({ kind: "exited", code: 1 });
    await it.seconds(20);
    expect(it.stateOf("a")).toBe("pending");
    it.machine.says({ available: 50 });
    await it.seconds(40);
    expect(it.kernel.agents.get("a")).toMatchObject({ state: "running", restarts: 1 });
  });

  it("not those of services, of the master, of what it requires, and of priority 1000", async () => {
    const machine = fixtureMachine();
    machine.says({ available: 1 });
    const it = await started({
      machine,
      templates: { Master: { requires: ["agent:indexer"] } },
      config: {
        agents: [
          { agent_id: "master", template_id: "Master" },
          { agent_id: "indexer", template_id: "Plain" },
          { agent_id: "other", template_id: "Plain" },
        ],
      },
    });
    await it.start("pinned", "Pinned");
    await it.seconds(5);
    expect(it.running()).toEqual(["indexer", "master", "pinned"]);
    expect([it.stateOf("svc:bus"), it.stateOf("other")]).toEqual(["running", "pending"]);
    await it.seconds(120);
    expect(it.running()).toEqual(["indexer", "master", "pinned"]);
  });

  it("are not looked after with on_pressure ignore", async () => {
    const it = await started({ options: { on_pressure: "ignore" } });
    it.machine.says({ some: 100, full: 100, available: 0 });
    await it.seconds(30);
    await it.start("a");
    await it.seconds(60);
    expect([it.stateOf("a"), it.kernel.status().problems]).toEqual(["running", []]);
  });

  it("it is said where nothing can be read, and nobody waits", async () => {
    const it = await started();
    it.machine.says({}, false);
    await it.seconds(2);
    await it.start("a");
    expect(it.stateOf("a")).toBe("running");
    expect(it.kernel.status().problems).toEqual([expect.stringContaining("memory pressure is not watched")]);
  });
});

describe("max_running", () => {
  it("lets so many run, and the next in order when a place is free", async () => {
    const it = await started({ options: { max_running: 2 } });
    for (const id of ["a", "b", "c", "d"]) await it.start(id);
    await it.start("high", "High");
    await it.seconds(30);
    expect(it.running()).toEqual(["a", "b"]);
    expect(it.reasonOf("c")).toBe("waits: max_running of policy-memory-pressure allows 2 at a time");
    it.spawner.run("a").end({ kind: "exited", code: 0 });
    await it.seconds(2);
    expect(it.running()).toEqual(["b", "high"]);
    // Who is no longer wanted holds nobody up.
    await it.kernel.control.stop("c", operator);
    await it.kernel.control.stop("b", operator);
    await it.kernel.control.stop("high", operator);
    await it.seconds(2);
    expect(it.running()).toEqual(["d"]);
  });

  it("is no limit by default", async () => {
    const it = await started();
    const ids = Array.from({ length: 50 }, (_, index) => `a${index}`);
    await Promise.all(ids.map((id) => it.start(id)));
    expect(it.running()).toHaveLength(50);
  });

  it("holds for starts at the same moment, and counts no services", async () => {
    const it = await started({ options: { max_running: 3 } });
    expect(it.stateOf("svc:bus")).toBe("running");
    await Promise.all(Array.from({ length: 20 }, (_, index) => it.start(`a${index}`)));
    await it.seconds(30);
    expect(it.running()).toHaveLength(3);
    // Over and over: never more, and all of them have their turn.
    const seen = new Set<string>();
    for (let round = 0; round < 20; round++) {
      const [first = ""] = it.running();
      seen.add(first);
      it.spawner.run(first).end({ kind: "exited", code: 0 });
      await it.seconds(12);
      expect(it.running().length).toBe(Math.min(3, 19 - round));
    }
    expect(seen.size).toBe(20);
  });

  it("a start that fails gives its place back", async () => {
    const it = await started({
      options: { max_running: 1 },
      templates: { Once: { restart: { policy: "never" } } },
    });
    it.spawner.failNext(new Error("no process"));
    await it.start("a", "Once");
    await it.start("b");
    await it.seconds(3);
    expect([it.stateOf("a"), it.running()]).toEqual(["exited", ["b"]]);
  });

  it("one that waits for something else holds nobody up for long", async () => {
    const it = await started({
      options: { max_running: 1 },
      templates: { Needs: { requires: ["agent:needed"] } },
    });
    await it.start("needed");
    await it.start("needs", "Needs");
    await it.start("b");
    it.spawner.run("needed").end({ kind: "exited", code: 0 });
    await it.seconds(8);
    expect([it.stateOf("needs"), it.running()]).toEqual(["pending", ["b"]]);
  });
});

describe("max_starting", () => {
  it("lets so many be on their way to readiness at a time", async () => {
    const it = await started({
      options: { max_starting: 2 },
      templates: { Slow: { readiness: { type: "heartbeat", timeout: "10m" } } },
    });
    for (const id of ["a", "b", "c", "d"]) await it.start(id, "Slow");
    await it.seconds(60);
    expect(it.running()).toEqual(["a", "b"]);
    expect(it.reasonOf("d")).toBe("waits: max_starting of policy-memory-pressure allows 2 at a time");
    await it.kernel.reports.ready("a", it.kernel.agents.get("a")?.run_id ?? "");
    await it.seconds(2);
    expect(it.running()).toEqual(["a", "b", "c"]);
  });
});

describe("an agent is stopped when there is no memory left", () => {
  const options = { stop_after: "10s", calm: "10s", spacing: "2s" };

  it("the lowest priority first, then the idlest, one at a time, never the pinned and the master", async () => {
    const it = await started({
      options,
      cpu: { busy: 80, idle: 2, "busy-low": 90 },
      config: { agents: [{ agent_id: "master", template_id: "Low" }] },
    });
    await it.start("pinned", "Pinned");
    await it.start("high", "High");
    await it.start("busy");
    await it.start("idle");
    await it.start("busy-low", "Low");
    await it.seconds(5);
    it.machine.says({ some: 60, full: 45, available: 10 });
    await it.seconds(9);
    expect(it.running()).toHaveLength(6);
    const gone: string[] = [];
    for (let second = 0; second < 120; second++) {
      const before = it.running();
      await it.seconds(1);
      gone.push(before.filter((id) => !it.running().includes(id)).join());
    }
    expect(gone.filter((id) => id !== "")).toEqual(["busy-low", "idle", "busy", "high"]);
    expect(it.running()).toEqual(["master", "pinned"]);
  });

  it("it is not to blame: it waits, uncounted, and comes back when the pressure is over", async () => {
    const it = await started({ options, templates: { Never: { restart: { policy: "never" } } } });
    await it.start("a", "Never");
    const { run_id } = it.kernel.agents.get("a") ?? {};
    it.machine.says({ available: 1.5 });
    await it.seconds(14);
    const agent = it.kernel.agents.get("a");
    expect(agent).toMatchObject({
      state: "pending",
      desired: "running",
      restarts: 0,
      reason: expect.stringContaining("waits: memory pressure"),
      last_exit: { run_id, cause: "policy", actor: "plugin:policy-memory-pressure" },
    });
    expect(agent?.last_exit?.reason).toMatch(
      /^memory pressure for 1\ds: 146MiB \(1.5%\) of memory is available, less than 2% \(stop_available\); it exited/,
    );
    it.machine.says({ available: 50 });
    await it.seconds(14);
    expect(it.kernel.agents.get("a")).toMatchObject({ state: "running", restarts: 0 });
  });

  it.each([
    ["not yet so high", { some: 100, full: 29, available: 3 }, {}],
    ["high, with plenty available", { some: 100, full: 100, available: 30 }, {}],
    ["high, with on_pressure wait", { some: 100, full: 100, available: 1 }, { on_pressure: "wait" }],
  ] as const)("none is where it is %s", async (_, says, more) => {
    const it = await started({ options: { ...options, ...more } });
    await it.start("a");
    it.machine.says(says);
    await it.seconds(120);
    expect(it.running()).toEqual(["a"]);
  });

  it("none is for a moment's pressure", async () => {
    const it = await started({ options });
    await it.start("a");
    for (let round = 0; round < 5; round++) {
      it.machine.says({ full: 90, some: 90, available: 1 });
      await it.seconds(8);
      it.machine.says({ available: 20 });
      await it.seconds(4);
    }
    expect(it.running()).toEqual(["a"]);
  });

  it("the next is not chosen while the last one still ends", async () => {
    const it = await started({ options, spawner: memorySpawner({ stubborn: ["a", "b"] }) });
    await it.start("a", "Low");
    await it.start("b");
    it.machine.says({ available: 1 });
    await it.seconds(30);
    expect([it.stateOf("a"), it.stateOf("b")]).toEqual(["stopping", "running"]);
    // It hangs: somebody else has to go.
    await it.seconds(40);
    expect([it.stateOf("a"), it.stateOf("b")]).toEqual(["stopping", "stopping"]);
  });

  it("a daemon that dies before the end: the next one knows why, and lets it wait", async () => {
    const before = await started({ options, spawner: memorySpawner({ stubborn: ["a"] }) });
    await before.start("a");
    before.machine.says({ available: 1 });
    await before.seconds(14);
    expect(before.stateOf("a")).toBe("stopping");
    const state = structuredClone(before.state);
    before.spawner.run("a").end({ kind: "signaled", signal: "SIGKILL" });
    const { spawner, machine } = before;
    const it = await started({ options, spawner, machine, state });
    await it.seconds(5);
    expect(it.kernel.agents.get("a")).toMatchObject({
      state: "pending",
      restarts: 0,
      last_exit: { signal: "SIGKILL", cause: "policy", actor: "plugin:policy-memory-pressure" },
    });
    machine.says({ available: 50 });
    await it.seconds(20);
    expect(it.stateOf("a")).toBe("running");
  });
});
