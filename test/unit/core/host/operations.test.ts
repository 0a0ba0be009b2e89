import { beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { createHooks } from "../../../../core/host/hooks.js";
import { createDispatch } from "../../../../core/host/operations.js";
import { createSlotRegistry } from "../../../../core/host/slots.js";
import {
  authorizer,
  type Dispatch,
  defineOperation,
  operation,
  type Principal,
} from "../../../../core/index.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";

const agent: Principal = { kind: "agent", id: "agent:a", agentId: "a", runId: "run" };

/** What was asked or run, in order. */
let steps: string[];
/** Whom the handler was called for. */
let principals: Principal[];
let isAllowed: boolean;
let dispatch: Dispatch;

beforeEach(() => {
  steps = [];
  principals = [];
  isAllowed = true;
  const slots = createSlotRegistry();
  const hooks = createHooks();
  for (const scope of ["any", "public"] as const) {
    slots.provide(
      operation,
      defineOperation({
        name: `things.${scope}`,
        summary: "Does a thing.",
        scope,
        input: z.unknown().refine((value) => {
          steps.push("validation");
          return value !== "bad";
        }),
        async handler(_input, { principal }) {
          steps.push("handler");
          principals.push(principal);
        },
      }),
      "fixture",
    );
  }
  slots.provide(
    authorizer,
    {
      authorize() {
        steps.push("authorizer");
        return isAllowed ? { verdict: "allow" } : { verdict: "deny", code: "forbidden", detail: "no" };
      },
    },
    "fixture",
  );
  hooks.onRequest.tapPromise("fixture", async () => {
    steps.push("onRequest");
    return undefined;
  });
  dispatch = createDispatch({ slots, hooks, clock: createFakeClock(), deadlineMs: 1_000, problem: () => {} });
});

describe("dispatch", () => {
  it("validates, asks the authorizer, then the taps of onRequest, and runs the handler", async () => {
    await dispatch("things.any", {}, agent);
    expect(steps).toEqual(["validation", "authorizer", "onRequest", "handler"]);
    expect(principals).toEqual([agent]);
  });

  it("asks no authorizer about input that is not valid", async () => {
    await expect(dispatch("things.any", "bad", agent)).rejects.toMatchObject({ code: "input_invalid" });
    expect(steps).toEqual(["validation"]);
  });

  it("asks no tap about a request that the authorizer denied", async () => {
    isAllowed = false;
    await expect(dispatch("things.any", {}, agent)).rejects.toMatchObject({ code: "forbidden" });
    expect(steps).toEqual(["validation", "authorizer"]);
  });
});

describe("a value that is not a principal", () => {
  const values: [string, unknown][] = [
    ["a promise of a principal", Promise.resolve({ kind: "operator", id: "operator" })],
    ["a kind that does not exist", { kind: "user", id: "user:u" }],
    ["an agent without an id of an agent", { kind: "agent", id: "agent:a", runId: "run" }],
    ["an agent without a run", { kind: "agent", id: "agent:a", agentId: "a" }],
    ["an operator without a name", { kind: "operator" }],
    ["null", null],
  ];

  it.each(values)("has no rights, whatever the authorizer allows: %s", async (_, value) => {
    await expect(dispatch("things.any", {}, value as Principal)).rejects.toMatchObject({
      code: "unauthenticated",
      message: "the authenticator returned a value that is not a principal",
    });
    expect(steps).toEqual([]);
  });

  it.each(values)("is anonymous to a public operation: %s", async (_, value) => {
    await dispatch("things.public", {}, value as Principal);
    expect(principals).toEqual([{ kind: "anonymous", id: "anonymous" }]);
  });
});
