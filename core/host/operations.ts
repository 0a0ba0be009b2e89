import { isOpenStarryError, OpenStarryError } from "../contracts/errors.js";
import { type Dispatch, type Operation, operation } from "../contracts/operation.js";
import { nearest } from "../lib/nearest.js";
import { validate } from "../lib/validate.js";
import type { Hooks } from "./hooks.js";
import type { SlotRegistry } from "./slots.js";

export function createDispatch(slots: SlotRegistry, hooks: Hooks): Dispatch {
  return async (name, rawInput, principal, options = {}) => {
    const known = slots.use(operation);
    const found = known.get(name) as Operation<Record<string, unknown>> | undefined;
    if (!found) {
      const guess = nearest(name, known.keys());
      throw new OpenStarryError("operation_unknown", {
        detail: `there is no operation "${name}"`,
        hint: guess ? `did you mean "${guess}"?` : "GET /openapi.json lists the operations",
      });
    }
    // A caller without a valid token learns nothing about what valid input looks like.
    if (principal.kind === "anonymous" && found.scope !== "public") {
      throw new OpenStarryError("unauthenticated", {
        detail: "this needs a token, and none was given or it is not valid",
        hint: "send the header 'Authorization: Bearer TOKEN' with the content of the token file",
      });
    }
    const input = await validate(found.input, rawInput, {
      code: "input_invalid",
      what: `the input of ${name}`,
    });
    await permit(hooks, { operation: name, scope: found.scope, input, principal });
    return found.handler(input, { signal: new AbortController().signal, ...options, principal });
  };
}

async function permit(hooks: Hooks, request: Parameters<Hooks["onRequest"]["promise"]>[0]): Promise<void> {
  let denial: Awaited<ReturnType<Hooks["onRequest"]["promise"]>>;
  try {
    denial = await hooks.onRequest.promise(Object.freeze(request));
  } catch (cause) {
    throw new OpenStarryError("forbidden", {
      detail: `the request could not be judged: ${isOpenStarryError(cause) ? cause.message : "a plugin failed"}`,
      hint: "look into the daemon's log for the plugin that failed",
      cause,
    });
  }
  if (denial) {
    throw new OpenStarryError(denial.code, {
      detail: denial.detail,
      ...(denial.hint === undefined ? {} : { hint: denial.hint }),
    });
  }
}
