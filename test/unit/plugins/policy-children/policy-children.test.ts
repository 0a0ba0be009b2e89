import { afterEach, describe, expect, test } from "vitest";
import type { StoredAgent } from "../../../../core/index.js";
import policyChildren from "../../../../plugins/policy-children/index.js";
import { memoryJournalState } from "../../../contract/memory-plugins.js";
import { createTestKernel, type TestKernel, type TestKernelOptions } from "../../../contract/test-kernel.js";

const operator = { actor: "operator", reason: "a test" };
const kernels: TestKernel[] = [];

/** A started kernel with the plugin, stopped when the test is over. */
async function started(options: TestKernelOptions): Promise<TestKernel> {
  const kernel = createTestKernel({ ...options, plugins: [policyChildren()] });
  kernels.push(kernel);
  await kernel.start();
  return kernel;
}

afterEach(async () => {
  for (const kernel of kernels.splice(0)) await kernel.stop({ agents: "keep", reason: "the test is over" });
});

test("the children of an agent that has ended are stopped, those of one about to restart are not", async () => {
  const templates = {
    Parent: { children: { max: 2 }, restart: { max_restarts: 1, backoff: { min: "0ms" } } },
    Plain: {},
  };
  const kernel = await started({ templates });
  await kernel.control.create({ agent_id: "parent", template_id: "Parent" }, operator);
  await kernel.control.create({ agent_id: "child", template_id: "Plain", parent_id: "parent" }, operator);
  await Promise.all(["parent", "child"].map((id) => kernel.agents.wait(id, "ready")));
  kernel.spawner.run("parent").end({ kind: "exited", code: 1 });
  await kernel.agents.wait("parent", "settled");
  await kernel.agents.wait("parent", "ready");
  expect(kernel.agents.get("child")?.state).toBe("running");
  kernel.spawner.run("parent").end({ kind: "exited", code: 1 });
  const child = await kernel.agents.wait("child", "ended");
  expect(child).toMatchObject({ state: "stopped", last_exit: { cause: "parent_exit", actor: "daemon" } });
});

test("a detached child is reparented past all ancestors that have ended or were deleted", async () => {
  const templates = { Parent: { children: { max: 3, depth: 3 } }, Plain: {}, Detached: { detach: true } };
  const kernel = await started({ templates });
  const create = async (agent_id: string, template_id: string, parent_id?: string) => {
    await kernel.control.create(
      { agent_id, template_id, ...(parent_id === undefined ? {} : { parent_id }) },
      operator,
    );
    await kernel.agents.wait(agent_id, "ready");
  };
  await create("top", "Parent");
  await create("middle", "Parent", "top");
  await create("plain", "Plain", "middle");
  await create("detached", "Detached", "middle");
  kernel.spawner.run("middle").end({ kind: "exited", code: 0 });
  expect(await kernel.agents.wait("plain", "ended")).toMatchObject({
    last_exit: { cause: "parent_exit", reason: expect.stringContaining("its parent middle is over") },
  });
  expect(kernel.agents.get("detached")).toMatchObject({ state: "running", parent_id: "top" });

  // Of a subtree, the parent ends after the one above it: a child reparented to that one does not stay there.
  await kernel.control.start("middle", operator);
  await kernel.agents.wait("middle", "ready");
  await create("second", "Detached", "middle");
  await kernel.control.stop("top", operator);
  await kernel.agents.wait("middle", "ended");
  for (const id of ["detached", "second"]) {
    expect(kernel.agents.get(id)).toMatchObject({ state: "running", parent_id: undefined });
  }
  await kernel.control.remove("second", operator);
  await kernel.agents.wait("second", "gone").catch(() => {});
  expect(kernel.agents.get("second")).toBeUndefined();

  await create("guest", "Plain");
  await create("kept", "Detached", "guest");
  await kernel.control.remove("guest", operator);
  await kernel.agents.wait("guest", "gone").catch(() => {});
  expect(kernel.agents.get("kept")).toMatchObject({ state: "running", parent_id: undefined });
  await kernel.stop({ agents: "stop", reason: "over" });
  expect(kernel.agents.get("kept")).toMatchObject({
    desired: "running",
    last_exit: { cause: "daemon_stop" },
  });
});

test("children of a parent whose end the daemon did not live to act on are stopped or reparented at the next start", async () => {
  const state = memoryJournalState();
  const templates = { Parent: { children: { max: 2 } }, Plain: {}, Detached: { detach: true } };
  const first = await started({ templates, state });
  await first.control.create({ agent_id: "parent", template_id: "Parent" }, operator);
  await first.control.create({ agent_id: "plain", template_id: "Plain", parent_id: "parent" }, operator);
  await first.control.create({ agent_id: "free", template_id: "Detached", parent_id: "parent" }, operator);
  await Promise.all(["parent", "plain", "free"].map((id) => first.agents.wait(id, "ready")));
  const before = new Map([...state.agents].map(([id, stored]) => [id, structuredClone(stored)]));
  await first.control.stop("parent", operator);
  await first.agents.wait("plain", "ended");
  // As if it had died between the two records.
  for (const id of ["plain", "free"]) state.agents.set(id, before.get(id) as StoredAgent);
  await first.stop({ agents: "keep", reason: "it dies" });
  const second = await started({ templates, state });
  await second.agents.wait("free", "ready");
  expect(second.agents.get("free")?.parent_id).toBeUndefined();
  expect(await second.agents.wait("plain", "ended")).toMatchObject({ desired: "stopped" });
});

describe("children.max", () => {
  /** `boss`, with as many children as its template allows: "live" runs, "waiting" waits. */
  async function full(): Promise<TestKernel> {
    const templates = {
      Boss: { children: { max: 2 } },
      Plain: {},
      Waiting: { requires: ["agent:nobody"] },
      NoSection: {},
    };
    const kernel = await started({ templates });
    await kernel.control.create({ agent_id: "boss", template_id: "Boss" }, operator);
    await kernel.control.create({ agent_id: "done", template_id: "Plain", parent_id: "boss" }, operator);
    await kernel.agents.wait("done", "ready");
    kernel.spawner.run("done").end({ kind: "exited", code: 0 });
    await kernel.agents.wait("done", "ended");
    await kernel.control.create({ agent_id: "live", template_id: "Plain", parent_id: "boss" }, operator);
    await kernel.agents.wait("live", "ready");
    await kernel.control.create({ agent_id: "below", template_id: "Plain", parent_id: "live" }, operator);
    await kernel.control.create({ agent_id: "waiting", template_id: "Waiting", parent_id: "boss" }, operator);
    return kernel;
  }
  const boss = { actor: "agent:boss", reason: "a test" };
  const more = { template_id: "Plain", parent_id: "boss" };

  test("children that live or wait count, ended ones and grandchildren do not", async () => {
    const kernel = await full();
    const refusal = {
      code: "quota_exceeded",
      message: "agent boss has 2 live children, and its template allows 2",
      hint: "wait until one of them has ended or stop one: live, waiting",
    };
    for (const who of [boss, operator]) {
      await expect(kernel.control.create(more, who)).rejects.toMatchObject(refusal);
      await expect(kernel.agents.check(more, who)).rejects.toMatchObject(refusal);
    }
    await kernel.control.stop("waiting", operator);
    await kernel.agents.wait("waiting", "ended");
    expect(await kernel.agents.check(more, boss)).toMatchObject({ parent_id: "boss" });
    expect(await kernel.control.create(more, boss)).toMatchObject({ parent_id: "boss" });
  });

  test("a request for an agent that exists is told so, whatever the quota", async () => {
    const kernel = await full();
    for (const agent_id of ["live", "done"])
      await expect(kernel.control.create({ ...more, agent_id }, boss)).rejects.toMatchObject({
        code: "agent_exists",
      });
  });

  test("of many requests at once only those within the quota are accepted", async () => {
    const kernel = await full();
    await kernel.control.remove("waiting", operator);
    await kernel.agents.wait("waiting", "gone").catch(() => {});
    const asked = Array.from({ length: 20 }, () => kernel.control.create(more, boss));
    const made = (await Promise.allSettled(asked)).filter(({ status }) => status === "fulfilled");
    expect(made).toHaveLength(1);
  });

  test("an ended child that an agent starts again counts; the operator may start it all the same", async () => {
    const kernel = await full();
    for (const command of ["start", "restart"] as const)
      await expect(kernel.control[command]("done", boss)).rejects.toMatchObject({ code: "quota_exceeded" });
    for (const command of ["start", "restart"] as const)
      expect(await kernel.control[command]("live", boss)).toMatchObject({ agent_id: "live" });
    expect(await kernel.control.start("done", operator)).toMatchObject({ state: "pending" });
  });

  test("below a parent without the section no agent starts an ended child again", async () => {
    const kernel = await full();
    await kernel.control.create({ agent_id: "plain", template_id: "NoSection" }, operator);
    await kernel.control.reparent("done", "plain");
    await expect(kernel.control.start("done", boss)).rejects.toMatchObject({ code: "quota_exceeded" });
    expect(await kernel.control.create({ template_id: "Plain", parent_id: "plain" }, operator)).toMatchObject(
      {
        parent_id: "plain",
      },
    );
  });
});
