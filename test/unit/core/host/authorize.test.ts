import { describe, expect, it } from "vitest";
import { requirePermission } from "../../../../core/host/authorize.js";
import { createHooks } from "../../../../core/host/hooks.js";
import { createSlotRegistry } from "../../../../core/host/slots.js";
import type { Authorizer, Denial, OperationRequest, Principal, Verdict } from "../../../../core/index.js";
import { authorizer } from "../../../../core/index.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";

const operator: Principal = { kind: "operator", id: "operator" };
const internal: Principal = { kind: "internal", id: "plugin:x" };
const anonymous: Principal = { kind: "anonymous", id: "anonymous" };
const agent: Principal = { kind: "agent", id: "agent:a", agentId: "a", runId: "run" };

interface Stage {
  /** Absent: no plugin provides one. */
  authorize?: Authorizer["authorize"];
  /** What a tap of `onRequest` answers. */
  tap?: (request: OperationRequest) => Denial | undefined;
  scope?: string;
}

/** What the daemon shows the operator as wrong. */
let problems: string | undefined;

/** How a request of this principal ends: `allowed`, or the code and the words of the denial. */
async function outcome(principal: Principal, { authorize, tap, scope = "any" }: Stage) {
  const slots = createSlotRegistry();
  const hooks = createHooks();
  const clock = createFakeClock();
  if (authorize) slots.provide(authorizer, { authorize }, "fixture");
  if (tap) hooks.onRequest.tapPromise("fixture", async (request) => tap(request));
  const request = { operation: "things.do", scope, input: {}, principal };
  const problem = (_: string, text: string | undefined) => {
    problems = text;
  };
  const asked = requirePermission(request, { slots, hooks, clock, deadlineMs: 10_000, problem }).then(
    () => "allowed",
    ({ code, message }) => `${code}: ${message}`,
  );
  await clock.advance(10_000);
  return asked;
}

const allow = (): Verdict => ({ verdict: "allow" });
const deny = (): Verdict => ({ verdict: "deny", code: "quota_exceeded", detail: "two are enough" });

describe("an authorizer that answers", () => {
  it("allows", async () => {
    for (const who of [agent, anonymous, operator])
      expect(await outcome(who, { authorize: allow })).toBe("allowed");
  });

  it("denies, the operator too, in its own words", async () => {
    for (const who of [agent, operator])
      expect(await outcome(who, { authorize: deny })).toBe("quota_exceeded: two are enough");
  });

  it("is told operation, scope, input and principal", async () => {
    let seen: OperationRequest | undefined;
    await outcome(agent, {
      scope: "agent:read",
      authorize(request) {
        seen = request;
        return allow();
      },
    });
    expect(seen).toEqual({ operation: "things.do", scope: "agent:read", input: {}, principal: agent });
  });

  it("cannot silence a tap of onRequest, which denies after it", async () => {
    const tap = (): Denial => ({ code: "forbidden", detail: "not on Sundays" });
    expect(await outcome(operator, { authorize: allow, tap })).toBe("forbidden: not on Sundays");
  });
});

describe("no answer of an authorizer", () => {
  const stages: [string, Stage["authorize"], string][] = [
    ["none is provided", undefined, "no plugin provides one"],
    [
      "it throws",
      () => {
        throw new Error("boom");
      },
      "boom",
    ],
    ["it rejects", () => Promise.reject(new Error("boom")), "boom"],
    ["it never settles", () => new Promise(() => {}), "no answer within 10000 ms"],
    ["it answers nothing", () => undefined as never, "it answered {}"],
    ["it answers something else", () => ({ verdict: "yes" }) as never, 'it answered {"verdict":"yes"}'],
    ["it denies without a code", () => ({ verdict: "deny" }) as never, 'it answered {"verdict":"deny"}'],
    [
      "it denies with a code that does not exist",
      () => ({ verdict: "deny", code: "toString", detail: "no" }) as never,
      'it answered {"verdict":"deny","code":"toString","detail":"no"}',
    ],
    [
      "it denies without saying why",
      () => ({ verdict: "deny", code: "forbidden" }) as never,
      'it answered {"verdict":"deny","code":"forbidden"}',
    ],
  ];

  it.each(stages)("denies agents and strangers: %s", async (_, authorize, words) => {
    const stage: Stage = authorize ? { authorize } : {};
    for (const who of [agent, anonymous]) {
      expect(await outcome(who, stage)).toBe(
        "forbidden: things.do was denied: the daemon has no answer of its authorizer",
      );
      expect(problems).toBe(`the authorizer gives no verdict, so agents are denied everything: ${words}`);
    }
  });

  it.each(stages)("lets the operator and the daemon's own parts through: %s", async (_, authorize) => {
    const stage: Stage = authorize ? { authorize } : {};
    for (const who of [operator, internal]) expect(await outcome(who, stage)).toBe("allowed");
  });
});

it("a public operation asks no authorizer", async () => {
  expect(await outcome(anonymous, { scope: "public", authorize: deny })).toBe("allowed");
  expect(await outcome(anonymous, { scope: "public" })).toBe("allowed");
});
