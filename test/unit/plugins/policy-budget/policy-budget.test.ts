import { afterEach, describe, expect, it } from "vitest";
import type { ConfiguredPlugin, TemplateInput } from "../../../../core/index.js";
import budget from "../../../../plugins/policy-budget/index.js";
import policyChildren from "../../../../plugins/policy-children/index.js";
import { type MemorySpawner, memoryJournalState, memorySpawner } from "../../../contract/memory-plugins.js";
import { createTestKernel, type TestKernel } from "../../../contract/test-kernel.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";

const SECOND = 1_000;
const operator = { actor: "operator", reason: "a test" };
const kernels: TestKernel[] = [];

afterEach(async () => {
  for (const kernel of kernels.splice(0)) await kernel.stop({ agents: "keep", reason: "the test is over" });
});

type Section = NonNullable<TemplateInput["budget"]>;

/** A kernel with templates of these budgets, by id; children may be started below every agent. */
async function withBudgets(
  sections: Record<string, { budget?: Section } & Record<string, unknown>>,
  {
    state = memoryJournalState(),
    spawner = memorySpawner(),
    clock = createFakeClock(),
    options = {},
  }: {
    state?: ReturnType<typeof memoryJournalState>;
    spawner?: MemorySpawner;
    clock?: ReturnType<typeof createFakeClock>;
    options?: object;
  } = {},
) {
  const templates = Object.fromEntries(
    Object.entries({ Free: {}, ...sections }).map(([id, more]) => [
      id,
      { children: { depth: 5 }, restart: { backoff: { min: "0s" } }, ...more },
    ]),
  );
  const plugins: ConfiguredPlugin[] = [budget(options), policyChildren()];
  const kernel = createTestKernel({ clock, templates, plugins, state, spawner });
  kernels.push(kernel);
  await kernel.start();
  const start = async (agent_id: string, template_id: string, parent_id?: string) => {
    await kernel.control.create(
      { agent_id, template_id, ...(parent_id === undefined ? {} : { parent_id }) },
      operator,
    );
    await kernel.agents.wait(agent_id, "settled");
  };
  return {
    kernel,
    clock,
    templates,
    state,
    spawner,
    start,
    /** What the current run has used so far, as it says. */
    report: async (agentId: string, usage: { tokens?: number; usd?: number }) => {
      await kernel.reports.heartbeat(agentId, kernel.agents.get(agentId)?.run_id ?? "", {
        usage: { input_tokens: usage.tokens ?? 0, output_tokens: 0, cost_usd: usage.usd ?? 0 },
      });
    },
    seconds: (count: number) => clock.advance(count * SECOND),
    stateOf: (agentId: string) => kernel.agents.get(agentId)?.state,
    spentBy: (agentId: string) => kernel.agents.get(agentId)?.spent,
    told: () =>
      state.events
        .filter((event) => event.type === "agent.limit")
        .map(({ agent_id, data }) => `${agent_id} ${data.action} ${data.limit} ${data.measured}`),
  };
}

describe("a budget of tokens", () => {
  it("is silent below four fifths, told of from there on, once, and acts when it is used up", async () => {
    const it = await withBudgets({ T: { budget: { tokens_max: 1000 } } });
    await it.start("a", "T");
    await it.report("a", { tokens: 799 });
    await it.seconds(60);
    expect([it.told(), it.stateOf("a")]).toEqual([[], "running"]);
    await it.report("a", { tokens: 800 });
    await it.report("a", { tokens: 999 });
    await it.seconds(60);
    expect([it.told(), it.stateOf("a")]).toEqual([["a warn tokens_max 800"], "running"]);
    await it.report("a", { tokens: 1100 });
    expect(it.told().slice(1)).toEqual(["a stop tokens_max 1100"]);
    // It hears of it, and has the grace to end what it is at.
    expect(it.kernel.agents.get("a")?.reason).toBe(
      "1100 tokens reported of tokens_max 1000 tokens (110%), those below it included; it is stopped at 2026-01-01T00:02:30.000Z",
    );
    await it.seconds(29);
    expect(it.stateOf("a")).toBe("running");
    await it.seconds(1);
    const agent = it.kernel.agents.get("a");
    expect(agent).toMatchObject({ state: "stopped", desired: "stopped" });
    expect(agent?.last_exit).toMatchObject({ cause: "policy", actor: "plugin:policy-budget" });
    expect(agent?.last_exit?.reason).toContain(
      "the budget of a is used up: 1100 tokens reported of tokens_max 1000 tokens (110%)",
    );
    expect(agent?.last_exit?.reason).toContain("raise budget.tokens_max in its template and start it again");
  });

  it("counts what went in and what came out", async () => {
    const it = await withBudgets({ T: { budget: { tokens_max: 1000 } } });
    await it.start("a", "T");
    const { run_id = "" } = it.kernel.agents.get("a") ?? {};
    const usage = { input_tokens: 700, output_tokens: 300, cost_usd: 0 };
    await it.kernel.reports.heartbeat("a", run_id, { usage });
    expect(it.told()).toEqual(["a stop tokens_max 1000"]);
  });

  it("counts over all runs: a restart gives nothing back", async () => {
    const it = await withBudgets({ T: { budget: { tokens_max: 1000 } } });
    await it.start("a", "T");
    await it.report("a", { tokens: 600 });
    it.kernel.spawner.run("a").end({ kind: "exited", code: 1 });
    await it.seconds(1);
    expect([it.stateOf("a"), it.kernel.agents.get("a")?.usage]).toEqual(["running", undefined]);
    await it.report("a", { tokens: 500 });
    expect(it.spentBy("a")).toEqual({ input_tokens: 1100, output_tokens: 0, cost_usd: 0 });
    await it.seconds(30);
    expect(it.stateOf("a")).toBe("stopped");
  });
});

describe("a budget of money", () => {
  it.each([
    [1.99, "running"],
    [2, "stopped"],
  ])("of 2 USD after %f USD: %s", async (usd, state) => {
    const it = await withBudgets({ T: { budget: { cost_max_usd: 2 } } }, { options: { grace: "5s" } });
    await it.start("a", "T");
    await it.report("a", { usd, tokens: 1e9 });
    await it.seconds(5);
    expect(it.stateOf("a")).toBe(state);
  });

  it("with on_exceed warn is told of, and nothing else", async () => {
    const it = await withBudgets({ T: { budget: { cost_max_usd: 2, on_exceed: "warn" } } });
    await it.start("a", "T");
    await it.report("a", { usd: 3 });
    await it.seconds(600);
    expect([it.told(), it.stateOf("a")]).toEqual([["a warn cost_max_usd 3"], "running"]);
    it.kernel.spawner.run("a").end({ kind: "exited", code: 1 });
    await it.seconds(1);
    expect(it.stateOf("a")).toBe("running");
  });
});

describe("what is used up", () => {
  it("is not started again by itself, within the grace either", async () => {
    const it = await withBudgets({ T: { budget: { tokens_max: 1000 } } });
    await it.start("a", "T");
    await it.report("a", { tokens: 1000 });
    it.kernel.spawner.run("a").end({ kind: "exited", code: 1 });
    await it.seconds(1);
    expect(it.kernel.agents.get("a")).toMatchObject({
      state: "failed",
      restarts: 1,
      last_exit: { kind: "spawn_failed", cause: "policy" },
      reason: expect.stringContaining("the budget of a is used up: 1000 tokens"),
    });
    await it.seconds(60);
    expect(it.spawner.runs).toHaveLength(1);
  });

  it("starts again when somebody has raised it, and not before", async () => {
    const it = await withBudgets({ T: { budget: { tokens_max: 1000 } } });
    await it.start("a", "T");
    await it.report("a", { tokens: 1000 });
    await it.seconds(30);
    await it.kernel.control.start("a", operator);
    await it.kernel.agents.wait("a", "settled");
    expect(it.stateOf("a")).toBe("failed");
    it.templates["T"] = { ...it.templates["T"], budget: { tokens_max: 1500 } } as never;
    await it.kernel.control.start("a", operator);
    await it.kernel.agents.wait("a", "settled");
    expect(it.stateOf("a")).toBe("running");
    await it.report("a", { tokens: 500 });
    await it.seconds(30);
    expect(it.stateOf("a")).toBe("stopped");
  });

  it("is killed where it does not heed a polite stop", async () => {
    const spawner = memorySpawner({ stubborn: ["a"] });
    const it = await withBudgets({ T: { budget: { tokens_max: 1000 } } }, { spawner });
    await it.start("a", "T");
    await it.report("a", { tokens: 1000 });
    await it.seconds(30);
    expect([it.stateOf("a"), spawner.run("a").signals]).toEqual(["stopping", ["SIGTERM"]]);
    // What a spawner does when the template's grace is over.
    spawner.run("a").end({ kind: "signaled", signal: "SIGKILL" });
    await it.kernel.agents.wait("a", "ended");
    expect(it.stateOf("a")).toBe("stopped");
    expect(it.kernel.agents.get("a")?.last_exit).toMatchObject({ signal: "SIGKILL", cause: "policy" });
  });
});

describe("what those below use", () => {
  const family = { Parent: { budget: { tokens_max: 1000 } }, Own: { budget: { tokens_max: 300 } } };

  it("counts for all above, and for nobody beside", async () => {
    const it = await withBudgets(family);
    await it.start("top", "Free");
    await it.start("parent", "Parent", "top");
    await it.start("child", "Free", "parent");
    await it.start("grandchild", "Free", "child");
    await it.start("other", "Parent", "top");
    await it.report("child", { tokens: 100 });
    await it.report("grandchild", { tokens: 20 });
    await it.report("grandchild", { tokens: 30 });
    const spent = ["top", "parent", "child", "grandchild", "other"].map((id) => it.spentBy(id)?.input_tokens);
    expect(spent).toEqual([130, 130, 130, 30, undefined]);
  });

  it("ends the parent and all below it, also those that would outlive it", async () => {
    const it = await withBudgets({ ...family, Detached: { detach: true } });
    await it.start("top", "Free");
    await it.start("parent", "Parent", "top");
    await it.start("child", "Free", "parent");
    await it.start("detached", "Detached", "child");
    await it.report("parent", { tokens: 400 });
    await it.report("detached", { tokens: 600 });
    expect(it.told()).toEqual(["parent stop tokens_max 1000"]);
    // None is begun below it either.
    await it.start("late", "Free", "parent");
    expect(it.kernel.agents.get("late")).toMatchObject({ state: "failed", last_exit: { cause: "policy" } });
    await it.seconds(30);
    expect(["top", "parent", "child", "detached"].map(it.stateOf)).toEqual([
      "running",
      "stopped",
      "stopped",
      "stopped",
    ]);
    expect(it.kernel.agents.get("detached")?.last_exit?.reason).toContain("the budget of parent is used up");
  });

  it("a child's own budget ends the child alone", async () => {
    const it = await withBudgets(family);
    await it.start("parent", "Parent");
    await it.start("child", "Own", "parent");
    await it.report("child", { tokens: 300 });
    await it.seconds(30);
    expect([it.stateOf("parent"), it.stateOf("child")]).toEqual(["running", "stopped"]);
  });

  it("counts also of children that are deleted, and of their successors of that name", async () => {
    const it = await withBudgets(family);
    await it.start("parent", "Parent");
    for (let round = 0; round < 3; round++) {
      await it.start("child", "Own", "parent");
      await it.report("child", { tokens: 299 });
      await it.kernel.control.remove("child", operator);
      await it.kernel.agents.wait("child", "gone").catch(() => {});
    }
    expect(it.spentBy("parent")?.input_tokens).toBe(897);
    expect(it.stateOf("parent")).toBe("running");
    await it.start("child", "Own", "parent");
    await it.report("child", { tokens: 103 });
    await it.seconds(30);
    expect(it.stateOf("parent")).toBe("stopped");
  });
});

describe("a report", () => {
  it("that is lower than the one before gives nothing back", async () => {
    const it = await withBudgets({ T: { budget: { tokens_max: 1000 } } });
    await it.start("a", "T");
    await it.report("a", { tokens: 600, usd: 1 });
    await it.report("a", { tokens: 0, usd: 2 });
    expect(it.kernel.agents.get("a")?.usage).toEqual({ input_tokens: 600, output_tokens: 0, cost_usd: 2 });
    await it.report("a", { tokens: 700 });
    expect(it.spentBy("a")).toEqual({ input_tokens: 700, output_tokens: 0, cost_usd: 2 });
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, -5])("of %f tokens counts as none", async (tokens) => {
    const it = await withBudgets({ T: { budget: { tokens_max: 1000 } } });
    await it.start("a", "T");
    await it.report("a", { tokens: 10 });
    await it.report("a", { tokens });
    await it.seconds(60);
    expect([it.spentBy("a")?.input_tokens, it.stateOf("a")]).toEqual([10, "running"]);
  });
});

describe("a daemon that dies", () => {
  const T = { T: { budget: { tokens_max: 1000 } }, Parent: { budget: { tokens_max: 1000 } } };

  /** As `kill -9` leaves it: nobody is told of anything any more. */
  function successor(before: Awaited<ReturnType<typeof withBudgets>>) {
    const state = structuredClone(before.state);
    return withBudgets(T, { state, spawner: before.spawner });
  }

  it("between the report and the stop: the next one acts", async () => {
    const before = await withBudgets(T);
    await before.start("a", "T");
    await before.start("thrifty", "T");
    await before.report("a", { tokens: 1000 });
    await before.report("thrifty", { tokens: 500 });
    const it = await successor(before);
    expect(it.kernel.agents.get("a")).toMatchObject({ state: "running", spent: { input_tokens: 1000 } });
    await it.seconds(30);
    expect([it.stateOf("a"), it.stateOf("thrifty")]).toEqual(["stopped", "running"]);
    // What the run had reported before counts once.
    await it.report("thrifty", { tokens: 600 });
    expect(it.spentBy("thrifty")?.input_tokens).toBe(600);
  });

  it("and the agent with it: it is not started again", async () => {
    const before = await withBudgets(T);
    await before.start("a", "T");
    await before.report("a", { tokens: 1000 });
    before.spawner.run("a").end({ kind: "exited", code: 1 });
    const it = await successor(before);
    await it.kernel.agents.wait("a", "ended");
    expect(it.stateOf("a")).toBe("failed");
    expect(it.spawner.runs).toHaveLength(1);
  });

  it("and those that were stopped for it before: nothing is said of them again", async () => {
    const before = await withBudgets(T);
    await before.start("a", "T");
    await before.report("a", { tokens: 1000 });
    await before.seconds(30);
    expect(before.stateOf("a")).toBe("stopped");
    const it = await successor(before);
    expect(it.kernel.logged.map(({ message }) => message)).not.toContain("an agent uses up its budget");
  });

  it("what deleted children had used is not forgotten", async () => {
    const before = await withBudgets(T);
    await before.start("parent", "Parent");
    await before.start("child", "Free", "parent");
    await before.report("child", { tokens: 700 });
    await before.kernel.control.remove("child", operator);
    await before.kernel.agents.wait("child", "gone").catch(() => {});
    const it = await successor(before);
    await it.report("parent", { tokens: 300 });
    await it.seconds(30);
    expect(it.stateOf("parent")).toBe("stopped");
  });
});
