import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import {
  authenticator,
  type ConfiguredPlugin,
  definePlugin,
  type PluginContext,
  type ServiceSpec,
  type SpawnSpec,
} from "../../../../core/index.js";
import { memoryJournalState, memorySpawner } from "../../../contract/memory-plugins.js";
import { createTestKernel, type TestKernel, type TestKernelOptions } from "../../../contract/test-kernel.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";
import { waitFor } from "../../../helpers/wait-for.js";

const operator = { actor: "operator", reason: "a test" };
const broker: ServiceSpec = { template: { command: "/bin/broker", restart: { policy: "always" } } };
const kernels: TestKernel[] = [];

async function started(options: TestKernelOptions): Promise<TestKernel> {
  const kernel = createTestKernel(options);
  kernels.push(kernel);
  await kernel.start();
  return kernel;
}

afterEach(async () => {
  specs.length = 0;
  for (const kernel of kernels.splice(0)) await kernel.stop({ agents: "keep", reason: "the test is over" });
});

type Start = (ctx: PluginContext) => Promise<unknown> | void;

function host(name: string, start: Start): ConfiguredPlugin {
  return definePlugin({
    name,
    apiVersion: 1,
    options: z.strictObject({}),
    setup: (ctx) => ({
      async start() {
        await start(ctx);
      },
    }),
  })();
}

/** What was started in this test. */
const specs: SpawnSpec[] = [];
const specWatcher = definePlugin({
  name: "watches-specs",
  apiVersion: 1,
  options: z.strictObject({}),
  setup(ctx) {
    ctx.hooks.beforeSpawn.tap("note", (spec) => {
      specs.push(spec);
      return spec;
    });
  },
})();

/** Publishes the endpoint of a service `bus`, which is asked for at once, or when it is wanted. */
function busPlugin(spec: ServiceSpec, { lazy = false } = {}): ConfiguredPlugin {
  return host("bus", async (ctx) => {
    const ensure = () => ctx.services.ensure("bus", spec);
    ctx.services.publishEndpoint({
      name: "bus",
      protocol: "test",
      health: () => (ctx.services.get("bus")?.state === "running" ? undefined : "it is not running"),
      urlFor: ({ agent_id }) => `test://${agent_id}@bus`,
      wanted: () => void ensure(),
    });
    if (!lazy || ctx.services.get("bus")) await ensure();
  });
}

describe("a service", () => {
  it("runs under an id of its own, and an agent that requires it finds it running", async () => {
    const kernel = await started({
      plugins: [busPlugin(broker), specWatcher],
      templates: { Worker: { requires: ["bus"] } },
    });
    const service = await kernel.agents.wait("svc:bus", "ready");
    expect(service).toMatchObject({ template_id: "bus", state: "running", desired: "running" });
    await kernel.control.create({ agent_id: "w", template_id: "Worker" }, operator);
    await kernel.agents.wait("w", "ready");
    expect(kernel.spawner.runs.map(({ spec }) => spec.agentId)).toEqual(["svc:bus", "w"]);
    expect(specs.at(-1)?.env["OPENSTARRY_BUS_URL"]).toBe("test://w@bus");
  });

  it("is started when it is first wanted, where its plugin leaves it until then", async () => {
    const kernel = await started({
      plugins: [busPlugin(broker, { lazy: true })],
      templates: { Plain: {}, Worker: { requires: ["bus"] } },
    });
    await kernel.control.create({ agent_id: "p", template_id: "Plain" }, operator);
    await kernel.agents.wait("p", "ready");
    expect(kernel.agents.get("svc:bus")).toBeUndefined();
    await kernel.control.create({ agent_id: "w", template_id: "Worker" }, operator);
    await kernel.agents.wait("w", "ready");
    expect(kernel.spawner.runs.map(({ spec }) => spec.agentId)).toEqual(["p", "svc:bus", "w"]);
  });

  it("holds those who require it in pending, in words, until it is there", async () => {
    const clock = createFakeClock();
    let problem: string | undefined = "the broker is not up yet";
    const kernel = await started({
      clock,
      plugins: [
        host("bus", (ctx) =>
          ctx.services.publishEndpoint({
            name: "bus",
            protocol: "test",
            health: () => problem,
            urlFor: () => undefined,
          }),
        ),
      ],
      templates: { Worker: { requires: ["bus"] } },
    });
    await kernel.control.create({ agent_id: "w", template_id: "Worker" }, operator);
    const waiting = await kernel.agents.wait("w", "launched");
    expect(waiting).toMatchObject({
      state: "pending",
      reason: "waits for bus: the broker is not up yet",
    });
    problem = undefined;
    // Not only when everything that waits is looked at again.
    await clock.advance(150);
    expect(await kernel.agents.wait("w", "ready")).toMatchObject({ state: "running" });
  });

  it("has no token, no addresses of others and nothing of the config's defaults", async () => {
    const minted: string[] = [];
    const tokens = definePlugin({
      name: "minting",
      apiVersion: 1,
      options: z.strictObject({}),
      provides: [authenticator],
      setup(ctx) {
        ctx.provide(authenticator, {
          authenticate: () => undefined,
          mint({ agentId }) {
            minted.push(agentId);
            return "t";
          },
        });
      },
    })();
    const kernel = await started({
      plugins: [tokens, busPlugin(broker), specWatcher],
      config: {
        defaults: { pass_env: ["SECRET?"], labels: { team: "x" }, resources: { memory_max: "64MiB" } },
      },
    });
    await kernel.agents.wait("svc:bus", "ready");
    await kernel.control.create({ agent_id: "p", template_id: "Plain" }, operator);
    await kernel.agents.wait("p", "ready");
    const [service, agent] = specs;
    expect(minted).toEqual(["p"]);
    expect(service?.passEnv).toEqual([]);
    expect(service?.limits?.memoryBytes).toBeUndefined();
    expect(kernel.agents.get("svc:bus")).toMatchObject({ labels: {} });
    expect(Object.keys(service?.env ?? {}).filter((name) => name.endsWith("_URL"))).toEqual([]);
    expect(service?.files.map(({ name }) => name)).not.toContain("token");
    expect(agent?.passEnv).toEqual(["SECRET?"]);
  });

  it("is taken over by the next daemon where it is to run as it does", async () => {
    const shared = { state: memoryJournalState(), spawner: memorySpawner(), plugins: [busPlugin(broker)] };
    const first = createTestKernel(shared);
    await first.start();
    const before = await first.agents.wait("svc:bus", "ready");
    await first.stop({ agents: "keep", reason: "a new daemon comes" });
    const second = await started(shared);
    const after = await second.agents.wait("svc:bus", "ready");
    expect(after).toMatchObject({ run_id: before.run_id, pid: before.pid, restarts: 0 });
    expect(shared.spawner.runs).toHaveLength(1);
  });

  it("is restarted, uncounted, by a daemon whose plugin wants it otherwise", async () => {
    const shared = { state: memoryJournalState(), spawner: memorySpawner() };
    const first = createTestKernel({ ...shared, plugins: [busPlugin(broker)] });
    await first.start();
    const before = await first.agents.wait("svc:bus", "ready");
    await first.stop({ agents: "keep", reason: "a new daemon comes" });
    const changed = { template: { ...broker.template, args: ["--port", "1"] } };
    const second = await started({ ...shared, plugins: [busPlugin(changed), specWatcher] });
    await second.agents.wait("svc:bus", "settled");
    const after = await second.agents.wait("svc:bus", "ready");
    expect(after.run_id).not.toBe(before.run_id);
    expect(after).toMatchObject({ restarts: 0, last_exit: { cause: "restart", actor: "plugin:bus" } });
    expect(specs.at(-1)?.args).toEqual(["--port", "1"]);
  });

  it("is ended and forgotten when no plugin asks for it any more", async () => {
    const shared = { state: memoryJournalState(), spawner: memorySpawner() };
    const first = createTestKernel({ ...shared, plugins: [busPlugin(broker)] });
    await first.start();
    await first.agents.wait("svc:bus", "ready");
    await first.stop({ agents: "keep", reason: "a new daemon comes" });
    const second = createTestKernel(shared);
    kernels.push(second);
    await second.start();
    if (second.agents.get("svc:bus")) await second.agents.wait("svc:bus", "gone");
    expect(shared.state.agents.size).toBe(0);
    expect(shared.spawner.run("svc:bus").signals).toEqual(["SIGTERM"]);
  });

  it("that is on its way out is waited for, and never there twice", async () => {
    const shared = { state: memoryJournalState(), spawner: memorySpawner({ stubborn: ["svc:bus"] }) };
    const first = createTestKernel({ ...shared, plugins: [busPlugin(broker)] });
    await first.start();
    await first.agents.wait("svc:bus", "ready");
    await first.stop({ agents: "keep", reason: "a new daemon comes" });
    const given: PluginContext[] = [];
    const second = createTestKernel({ ...shared, plugins: [host("bus", (ctx) => void given.push(ctx))] });
    kernels.push(second);
    await second.start();
    expect(second.agents.get("svc:bus")).toMatchObject({ state: "stopping" });
    const asked = given[0]?.services.ensure("bus", broker);
    expect(shared.spawner.runs).toHaveLength(1);
    shared.spawner.run("svc:bus").end({ kind: "signaled", signal: "SIGKILL" });
    await asked;
    expect(await second.agents.wait("svc:bus", "ready")).toMatchObject({ state: "running" });
    expect(shared.spawner.runs).toHaveLength(2);
    expect([...shared.state.agents.keys()]).toEqual(["svc:bus"]);
  });

  it("that ended while no daemon lived is known to have, to the plugin that asks for it again", async () => {
    const shared = { state: memoryJournalState(), spawner: memorySpawner() };
    const first = createTestKernel({ ...shared, plugins: [busPlugin(broker)] });
    await first.start();
    const { pid } = await first.agents.wait("svc:bus", "ready");
    await first.stop({ agents: "keep", reason: "a new daemon comes" });
    shared.spawner.run("svc:bus").end({ kind: "signaled", signal: "SIGKILL" });
    const seen: unknown[] = [];
    const waits = host("bus", async ({ services, agents }) => {
      await services.ensure("bus", broker);
      seen.push((await agents.wait("svc:bus", "ready")).pid);
    });
    await started({ ...shared, plugins: [waits] });
    expect(seen).toEqual([(pid ?? 0) + 1]);
  });

  it("that fails again and again is given up, however long an agent waits for it", async () => {
    const failing: ServiceSpec = {
      template: {
        command: "/bin/broker",
        restart: { policy: "always", max_restarts: 2, backoff: { min: "0ms" } },
      },
    };
    const endless = definePlugin({
      name: "endless",
      apiVersion: 1,
      options: z.strictObject({}),
      setup(ctx) {
        ctx.hooks.afterSpawn.tap("end it", ({ agent: { agent_id } }) => {
          if (agent_id === "svc:bus") kernel.spawner.run("svc:bus").end({ kind: "exited", code: 1 });
        });
      },
    })();
    const neverWell = host("bus", ({ services }) =>
      services.publishEndpoint({
        name: "bus",
        protocol: "test",
        health: () => "it does not answer",
        urlFor: () => undefined,
        wanted: () => void services.ensure("bus", failing),
      }),
    );
    const kernel: TestKernel = createTestKernel({
      plugins: [endless, neverWell],
      templates: { Worker: { requires: ["bus"] } },
    });
    kernels.push(kernel);
    await kernel.start();
    await kernel.control.create({ agent_id: "w", template_id: "Worker" }, operator);
    await waitFor(() => kernel.agents.get("svc:bus")?.state === "failed", { what: "the end of the trials" });
    expect(kernel.spawner.runs).toHaveLength(3);
    expect(kernel.agents.get("w")).toMatchObject({
      state: "pending",
      reason: expect.stringContaining("bus"),
    });
  });

  it("survives start --fresh, and ends after all agents at a stop", async () => {
    const shared = { state: memoryJournalState(), spawner: memorySpawner(), plugins: [busPlugin(broker)] };
    const first = createTestKernel(shared);
    await first.start();
    await first.control.create({ agent_id: "a", template_id: "Plain" }, operator);
    await first.agents.wait("a", "ready");
    await first.stop({ agents: "keep", reason: "a new daemon comes" });
    const second = createTestKernel({ ...shared, fresh: true });
    await second.start();
    await second.agents.wait("a", "ended");
    expect(second.agents.get("svc:bus")).toMatchObject({ state: "running" });
    await second.control.start("a", operator);
    await second.agents.wait("a", "ready");
    await second.stop({ agents: "stop", reason: "the end" });
    const ends = shared.state.events.filter(
      (event) => event.type === "agent.exited" && event.data.cause === "daemon_stop",
    );
    expect(ends.map(({ agent_id }) => agent_id)).toEqual(["a", "svc:bus"]);
  });

  it("belongs to one plugin", async () => {
    const other = host("other", (ctx) => ctx.services.ensure("bus", broker));
    const kernel = createTestKernel({ plugins: [busPlugin(broker), other] });
    await expect(kernel.start()).rejects.toMatchObject({
      code: "plugin_conflict",
      message: expect.stringContaining('plugins bus and other both ask for a service "svc:bus"'),
    });
  });

  it.each([["Bus"], ["../x"], ["svc:bus"], [""]])("is not called %j", async (name) => {
    const kernel = createTestKernel({ plugins: [host("bad", (ctx) => ctx.services.ensure(name, broker))] });
    await expect(kernel.start()).rejects.toMatchObject({ code: "plugin_failed" });
  });
});
