import { describe, expect, it } from "vitest";
import { z } from "zod";
import { isOpenStarryError, type OpenStarryError } from "../../../../core/contracts/errors.js";
import type { ResolvedPlugin } from "../../../../core/contracts/plugin.js";
import { definePlugin } from "../../../../core/contracts/plugin.js";
import { type Arity, defineSlot, type Slot } from "../../../../core/contracts/slot.js";
import { orderPlugins } from "../../../../core/host/plugin-graph.js";

const one = (name: string) => defineSlot<unknown>(`graph-test.${name}`, "one");
const many = (name: string) => defineSlot<unknown, "many">(`graph-test.${name}`, "many");
const [A, B, C] = [one("a"), one("b"), one("c")];
const MANY = many("many");

interface Parts {
  provides?: readonly Slot<unknown, Arity>[];
  requires?: readonly Slot<unknown, Arity>[];
  optional?: readonly Slot<unknown, Arity>[];
  origin?: "default";
}

let listed = 0;
function plugin(name: string, { origin, ...parts }: Parts = {}): ResolvedPlugin {
  const options = z.strictObject({});
  const made = definePlugin({ name, apiVersion: 1, options, setup() {}, ...parts })();
  return origin
    ? { ...made, origin, place: "a default" }
    : { ...made, origin: "config", place: `plugins[${listed++}]` };
}

function order(...plugins: ResolvedPlugin[]): string[] {
  return orderPlugins(plugins).ordered.map(({ definition }) => definition.name);
}

function refusal(...plugins: ResolvedPlugin[]): OpenStarryError {
  try {
    orderPlugins(plugins);
  } catch (error) {
    if (isOpenStarryError(error)) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

describe("order", () => {
  it("is the given one where nothing depends on anything", () => {
    expect(order(plugin("z"), plugin("m"), plugin("a"))).toEqual(["z", "m", "a"]);
  });

  it("has providers before those who require or can use them, and moves nothing else", () => {
    const user = plugin("user", { requires: [A], optional: [MANY, C] });
    const between = plugin("between");
    const m1 = plugin("m1", { provides: [MANY] });
    const a = plugin("a", { provides: [A], requires: [B] });
    const b = plugin("b", { provides: [B] });
    const m2 = plugin("m2", { provides: [MANY] });
    expect(order(user, between, m1, a, b, m2)).toEqual(["between", "m1", "b", "a", "m2", "user"]);
  });

  it("lets a plugin use a slot that it provides itself", () => {
    expect(order(plugin("chain", { provides: [MANY], requires: [MANY] }))).toEqual(["chain"]);
  });

  it("knows slots by name, also those of another copy of the package", () => {
    const copy: Slot<unknown> = { name: A.name, arity: "one", id: Symbol.for(`openstarry.slot.${A.name}`) };
    expect(order(plugin("user", { requires: [copy] }), plugin("provider", { provides: [A] }))).toEqual([
      "provider",
      "user",
    ]);
  });

  it("takes 200 plugins in a row in no time", () => {
    const slots = Array.from({ length: 200 }, (_, index) => one(`row${index}`));
    const row = slots.map((slot, index) =>
      plugin(`p${index}`, {
        provides: [slot],
        requires: slots[index + 1] ? [slots[index + 1] as Slot<unknown>] : [],
      }),
    );
    const start = performance.now();
    expect(order(...row)[0]).toBe("p199");
    expect(performance.now() - start).toBeLessThan(10_000);
  });
});

describe("displacement", () => {
  const standard = () => plugin("standard", { provides: [A], origin: "default" });

  it("keeps a default that nobody displaces", () => {
    expect(orderPlugins([standard(), plugin("x")]).displaced).toEqual([]);
  });

  it("drops the default whose slot for one a plugin of the config provides", () => {
    const { ordered, displaced } = orderPlugins([standard(), plugin("mine", { provides: [A] })]);
    expect(ordered.map(({ definition }) => definition.name)).toEqual(["mine"]);
    expect(displaced).toEqual([{ plugin: "standard", by: "mine", slot: A.name, emptied: [] }]);
  });

  it("leaves defaults alone that share a slot for many", () => {
    const shared = plugin("shared", { provides: [MANY], origin: "default" });
    expect(order(shared, plugin("mine", { provides: [MANY] }))).toEqual(["shared", "mine"]);
  });

  it("drops the whole default, and tells what is empty then", () => {
    const broad = plugin("broad", { provides: [A, B, MANY], origin: "default" });
    const mine = plugin("mine", { provides: [A] });
    expect(orderPlugins([broad, mine]).displaced).toEqual([
      { plugin: "broad", by: "mine", slot: A.name, emptied: [B.name, MANY.name] },
    ]);
    const error = refusal(broad, mine, plugin("user", { requires: [B] }));
    expect(error.message).toMatch(
      /user \(plugins\[\d+\]\) requires graph-test\.b, which nothing provides: mine displaced broad for graph-test\.a/,
    );
  });
});

describe("refusals", () => {
  it("two plugins of the config for one slot", () => {
    const error = refusal(
      plugin("standard", { provides: [A], origin: "default" }),
      plugin("x", { provides: [A] }),
      plugin("y", { provides: [A] }),
    );
    expect(error.code).toBe("plugin_conflict");
    expect(error.message).toMatch(
      /^x \(plugins\[\d+\]\) and y \(plugins\[\d+\]\) both provide graph-test\.a, which only one can$/,
    );
    expect(error.hint).toBe("keep one of x and y in plugins");
  });

  it("a requirement that nothing meets", () => {
    const error = refusal(plugin("user", { requires: [A], optional: [B] }));
    expect(error.message).toMatch(/^user \(plugins\[\d+\]\) requires graph-test\.a, which nothing provides$/);
    expect(error.hint).toContain('["user", false]');
  });

  it("a cycle, printed as one", () => {
    const error = refusal(
      plugin("before", { requires: [A] }),
      plugin("a", { provides: [A], requires: [B] }),
      plugin("b", { provides: [B], optional: [C] }),
      plugin("c", { provides: [C], requires: [A] }),
    );
    expect(error.message).toContain("a → b → c → a");
    expect(error.message).not.toContain("before →");
    expect(error.message).toMatch(/b \(plugins\[\d+\]\) needs graph-test\.c/);
    expect(error.hint).toBe("take one of a, b and c out of plugins");
  });

  it("two plugins of one name", () => {
    const error = refusal(plugin("same"), plugin("same"));
    expect(error.message).toMatch(/plugins\[\d+\] and plugins\[\d+\] are both named "same"/);
    expect(error.hint).toBe('list "same" once');
  });

  it("everything at once, in one error", () => {
    const error = refusal(
      plugin("x", { provides: [A], requires: [B] }),
      plugin("y", { provides: [A] }),
      plugin("same"),
      plugin("same"),
      plugin("p", { provides: [C], requires: [MANY] }),
      plugin("q", { provides: [MANY], requires: [C] }),
    );
    expect(error.data["problems"]).toHaveLength(4);
    for (const part of [
      "both provide graph-test.a",
      "requires graph-test.b",
      'both named "same"',
      "p → q → p",
    ]) {
      expect(error.message).toContain(part);
    }
  });
});
