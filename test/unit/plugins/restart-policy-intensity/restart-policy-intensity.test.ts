import { describe, expect, test } from "vitest";
import type { Exit, RestartDecision, RestartInput, RestartRules } from "../../../../core/index.js";
import {
  CHAIN_FACTOR,
  decide,
  STABLE_PERIODS,
  used,
} from "../../../../plugins/restart-policy-intensity/decide.js";
import restartPolicyPlugin from "../../../../plugins/restart-policy-intensity/index.js";

const RULES: RestartRules = {
  policy: "on-failure",
  max_restarts: 5,
  periodMs: 60_000,
  backoff: { minMs: 1_000, maxMs: 60_000 },
};
const NO_JITTER = { jitter: "none", random: () => 0.5 } as const;
const T0 = Date.UTC(2026, 0, 1);

type Ended = Partial<Exit> & Record<string, unknown>;

function exitOf(changes: Ended = {}): Exit {
  return {
    kind: "exited",
    code: 1,
    cause: "self",
    actor: "agent:a",
    reason: "",
    success: false,
    ended_at: new Date(T0).toISOString(),
    ...changes,
  } as Exit;
}

function inputOf(changes: Partial<RestartInput> & { ended?: Ended } = {}): RestartInput {
  const { ended, ...rest } = changes;
  return { exit: exitOf(ended), rules: RULES, memory: undefined, nowMs: T0, uptimeMs: 100, ...rest };
}

/** mulberry32: a small seeded generator, uniform in [0, 1). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Lets an agent fail again and again: `uptimeMs` up, then the delay that was decided. */
function loop(
  rules: RestartRules,
  uptimeMs: (run: number) => number,
  options: { runs: number; random?: () => number; ended?: Ended },
): { decisions: RestartDecision[]; times: number[] } {
  const decisions: RestartDecision[] = [];
  const times: number[] = [];
  let memory: unknown;
  let nowMs = T0;
  for (let run = 0; run < options.runs; run++) {
    nowMs += uptimeMs(run);
    const decision = decide(
      inputOf({ rules, memory, nowMs, uptimeMs: uptimeMs(run), ended: options.ended }),
      {
        jitter: options.random ? "full" : "none",
        random: options.random ?? (() => 0.5),
      },
    );
    decisions.push(decision);
    times.push(nowMs);
    // As the journal would keep it.
    memory = JSON.parse(JSON.stringify(decision.memory ?? null));
    if (decision.action !== "restart") break;
    nowMs += decision.delayMs;
  }
  return { decisions, times };
}

describe("what is restarted", () => {
  const success: Ended = { code: 0, success: true };
  const lost: Ended = { kind: "lost" };
  const spawnFailed: Ended = { kind: "spawn_failed", error: { code: "spawn_failed", detail: "x" } };
  test.each([
    ["never", {}, "exit", /^its restart policy is never$/],
    ["never", success, "exit", /^its restart policy is never$/],
    ["never", lost, "exit", /^its restart policy is never$/],
    ["never", spawnFailed, "fail", /^its restart policy is never$/],
    ["never", { cause: "start_timeout" }, "fail", /^its restart policy is never$/],
    ["never", { cause: "unhealthy" }, "fail", /^its restart policy is never$/],
    ["on-failure", {}, "restart", /^1 restart within 1m, at most 5 allowed; next start in 1s$/],
    ["on-failure", { kind: "signaled", signal: "SIGSEGV" }, "restart", /1 restart/],
    ["on-failure", { kind: "signaled", cause: "oom" }, "restart", /1 restart/],
    ["on-failure", success, "exit", /^its restart policy is on-failure$/],
    ["on-failure", lost, "restart", /1 restart/],
    ["on-failure", spawnFailed, "restart", /1 restart/],
    ["on-failure", { cause: "start_timeout" }, "restart", /1 restart/],
    ["always", success, "restart", /1 restart/],
    ["always", {}, "restart", /1 restart/],
  ] as const)("%s, %o: %s", (policy, ended, action, reason) => {
    const decision = decide(inputOf({ rules: { ...RULES, policy }, ended }), NO_JITTER);
    expect(decision.action).toBe(action);
    expect(decision.reason).toMatch(reason);
  });

  test.each([
    ["stop_request", "exit"],
    ["daemon_stop", "restart"],
    ["host_reboot", "restart"],
    ["restart", "restart"],
  ] as const)("an end by %s leaves the memory untouched: %s", (cause, action) => {
    const memory = { restarts_ms: [T0 - 1], streak: 3 };
    for (const policy of ["never", "on-failure", "always"] as const) {
      const decision = decide(inputOf({ rules: { ...RULES, policy }, ended: { cause }, memory }), NO_JITTER);
      expect(decision).toMatchObject({ action, memory });
      if (decision.action === "restart") expect(decision.delayMs).toBe(0);
    }
  });
});

describe("intensity", () => {
  test("the sixth restart within the period is not made", () => {
    const { decisions } = loop({ ...RULES, backoff: { minMs: 0, maxMs: 0 } }, () => 100, { runs: 20 });
    expect(decisions.map(({ action }) => action)).toEqual([...Array(5).fill("restart"), "fail"]);
    expect(decisions[2]?.reason).toBe("3 restarts within 1m, at most 5 allowed; next start at once");
    expect(decisions[5]?.reason).toBe("crash loop: 6 restarts would be within 1m, at most 5 allowed");
  });

  test("an agent that always ends well, and always at once, is a loop too", () => {
    const { decisions } = loop({ ...RULES, policy: "always" }, () => 10, {
      runs: 20,
      ended: { code: 0, success: true },
    });
    expect(decisions.at(-1)).toMatchObject({ action: "fail", reason: expect.stringContaining("crash loop") });
  });

  test("max_restarts 0 gives up at the first failure", () => {
    const decision = decide(inputOf({ rules: { ...RULES, max_restarts: 0 } }), NO_JITTER);
    expect(decision).toMatchObject({ action: "fail", reason: "it ended, and its max_restarts is 0" });
  });

  test("after giving up nothing is held against an explicit start", () => {
    const { decisions } = loop({ ...RULES, max_restarts: 1 }, () => 10, { runs: 5 });
    const failed = decisions.at(-1);
    expect(failed?.action).toBe("fail");
    expect(decide(inputOf({ memory: failed?.memory }), NO_JITTER)).toMatchObject({
      action: "restart",
      delayMs: 1_000,
    });
  });

  test("a wall clock that was set back makes old restarts pass after one period", () => {
    const dayMs = 86_400_000;
    const memory = { restarts_ms: [1, 2, 3, 4, 5].map((ms) => T0 + dayMs + ms), streak: 5 };
    expect(decide(inputOf({ memory }), NO_JITTER).action).toBe("fail");
    const four = { restarts_ms: memory.restarts_ms.slice(1), streak: 4 };
    const first = decide(inputOf({ memory: four }), NO_JITTER);
    expect(first.action).toBe("restart");
    const later = decide(inputOf({ memory: first.memory, nowMs: T0 + RULES.periodMs + 1 }), NO_JITTER);
    expect(later.reason).toMatch(/^1 restart within/);
  });
});

describe("slow loops", () => {
  test("a cycle of 150 s, which no window of 60 s can see, is given up after 15 failures in a row", () => {
    const { decisions } = loop(RULES, () => 150_000, { runs: 100 });
    expect(decisions).toHaveLength(CHAIN_FACTOR * RULES.max_restarts + 1);
    expect(decisions.at(-1)).toMatchObject({
      action: "fail",
      reason: "crash loop: 16 failures in a row, none of which stayed up for 10m; at most 15 allowed",
    });
  });

  test("a stable run in between starts the count again", () => {
    const stableMs = STABLE_PERIODS * RULES.periodMs;
    const { decisions } = loop(RULES, (run) => (run % 10 === 9 ? stableMs : 150_000), { runs: 200 });
    expect(decisions).toHaveLength(200);
    expect(decisions.at(-1)?.action).toBe("restart");
  });

  test("runs that end well are not failures in a row", () => {
    const { decisions } = loop({ ...RULES, policy: "always" }, () => 120_000, {
      runs: 200,
      ended: { code: 0, success: true },
    });
    expect(decisions).toHaveLength(200);
    expect(decisions.every((it) => it.action === "restart" && it.delayMs <= RULES.backoff.minMs)).toBe(true);
  });
});

describe("backoff", () => {
  const delays = (decisions: RestartDecision[]) =>
    decisions.map((decision) => (decision.action === "restart" ? decision.delayMs : decision.action));

  test("doubles from min to max, and starts at min again after a stable run", () => {
    const rules = { ...RULES, max_restarts: 100 };
    const stableMs = STABLE_PERIODS * RULES.periodMs;
    const { decisions } = loop(rules, (run) => (run === 8 ? stableMs : 100), { runs: 10 });
    expect(delays(decisions)).toEqual([
      1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 1_000, 2_000,
    ]);
  });

  test("full jitter takes any part of it", () => {
    const memory = { restarts_ms: [], streak: 2 };
    const delayAt = (random: number) => {
      const decision = decide(inputOf({ memory }), { jitter: "full", random: () => random });
      return decision.action === "restart" ? decision.delayMs : undefined;
    };
    expect([delayAt(0), delayAt(0.25), delayAt(0.999_999)]).toEqual([0, 1_000, 4_000]);
  });

  test("a min of 0 is immediate, however long the streak", () => {
    const memory = { restarts_ms: [], streak: 5_000 };
    const rules = { ...RULES, max_restarts: 10_000, backoff: { minMs: 0, maxMs: 60_000 } };
    expect(decide(inputOf({ memory, rules }), NO_JITTER)).toMatchObject({ action: "restart", delayMs: 0 });
  });

  test("the reason says when", () => {
    const decision = decide(inputOf({ memory: { restarts_ms: [T0 - 5_000, T0 - 2_000], streak: 2 } }), {
      jitter: "full",
      random: () => 0.35,
    });
    expect(decision.reason).toBe("3 restarts within 1m, at most 5 allowed; next start in 1.4s");
  });
});

test.each([
  ["null", null],
  ["a text", "x"],
  ["a number", 7],
  ["an empty object", {}],
  ["times that are none", { restarts_ms: ["yesterday"], streak: 1 }],
  ["no list", { restarts_ms: 5, streak: 1 }],
  ["a negative streak", { restarts_ms: [], streak: -4 }],
  ["a broken streak", { restarts_ms: [], streak: 0.5 }],
  ["not a number", { restarts_ms: [Number.NaN], streak: 0 }],
])("malformed memory counts as none: %s", (_, memory) => {
  expect(decide(inputOf({ memory }), NO_JITTER)).toEqual(decide(inputOf(), NO_JITTER));
});

describe("whatever happens (seeded)", () => {
  for (let seed = 1; seed <= 40; seed++) {
    test(`seed ${seed}`, () => {
      const random = seeded(seed);
      const rules: RestartRules = {
        policy: "on-failure",
        max_restarts: Math.floor(random() * 8),
        periodMs: 1_000 + Math.floor(random() * 120_000),
        backoff: { minMs: Math.floor(random() * 2_000), maxMs: 2_000 + Math.floor(random() * 60_000) },
      };
      const stableMs = STABLE_PERIODS * rules.periodMs;
      const scaleMs = stableMs * random() * 1.5;
      const uptimes = Array.from({ length: 400 }, () => Math.floor(random() * scaleMs));
      const { decisions, times } = loop(rules, (run) => uptimes[run] ?? 0, { runs: 400, random });

      const restarts = times.filter((_, index) => decisions[index]?.action === "restart");
      for (const [index, at] of restarts.entries()) {
        const within = restarts.slice(0, index + 1).filter((it) => it > at - rules.periodMs);
        expect(within.length).toBeLessThanOrEqual(rules.max_restarts);
      }
      let streak = 0;
      for (const [index, decision] of decisions.entries()) {
        streak = (uptimes[index] ?? 0) >= stableMs ? 1 : streak + 1;
        if (decision.action !== "restart") continue;
        expect(streak).toBeLessThanOrEqual(CHAIN_FACTOR * rules.max_restarts);
        expect(decision.delayMs).toBeGreaterThanOrEqual(0);
        expect(decision.delayMs).toBeLessThanOrEqual(
          Math.min(rules.backoff.maxMs, rules.backoff.minMs * 2 ** (streak - 1)),
        );
        expect(decision.reason).toMatch(/\d+ restarts? within .+, at most \d+ allowed; next start/);
      }
      const last = decisions.at(-1);
      if (decisions.length < 400) expect(last?.action).toBe("fail");
    });
  }
});

test("how much is used up is told in words, and that of the past period no more", () => {
  const first = decide(inputOf(), NO_JITTER);
  const { memory } = decide(inputOf({ memory: first.memory, nowMs: T0 + 1_000 }), NO_JITTER);
  const at = (nowMs: number, memory: unknown) => used({ rules: RULES, memory, nowMs });
  expect(at(T0 + 1_000, memory)).toBe("2 of 5 restarts within 1m, 2 of 15 failures in a row");
  expect(at(T0 + 60_500, memory)).toBe("1 of 5 restarts within 1m, 2 of 15 failures in a row");
  expect(at(T0, undefined)).toBeUndefined();
  expect(at(T0, "not a memory of ours")).toBeUndefined();
});

test("the plugin jitters unless told not to", async () => {
  const { options } = restartPolicyPlugin.definition;
  expect(await options["~standard"].validate({})).toEqual({ value: { jitter: "full" } });
  expect((await options["~standard"].validate({ jitter: "some" })).issues).toHaveLength(1);
});
