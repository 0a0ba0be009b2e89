import type { Principal } from "../contracts/authenticator.js";
import { OpenStarryError } from "../contracts/errors.js";
import { type Dispatch, type Operation, operation } from "../contracts/operation.js";
import { nearest } from "../lib/nearest.js";
import { validate } from "../lib/validate.js";
import { type AuthorizeDeps, isPrincipal, requirePermission } from "./authorize.js";
import type { SlotRegistry } from "./slots.js";

export interface DispatchDeps extends AuthorizeDeps {
  slots: SlotRegistry;
}

const ANONYMOUS: Principal = { kind: "anonymous", id: "anonymous" };

/** Validates the input, asks the authorizer and `onRequest`, runs the handler. The only way to any operation. */
export function createDispatch(deps: DispatchDeps): Dispatch {
  const { slots } = deps;
  return async (name, rawInput, caller, options = {}) => {
    // Rules that tell principals apart by kind would take an incomplete one for more than an agent.
    const principal = isPrincipal(caller) ? caller : ANONYMOUS;
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
      throw unauthenticated(principal === caller);
    }
    const input = await validate(found.input, rawInput, {
      code: "input_invalid",
      what: `the input of ${name}`,
    });
    await requirePermission(Object.freeze({ operation: name, scope: found.scope, input, principal }), deps);
    return found.handler(input, { signal: new AbortController().signal, ...options, principal });
  };
}

function unauthenticated(isCallerPrincipal: boolean): OpenStarryError {
  if (isCallerPrincipal) {
    return new OpenStarryError("unauthenticated", {
      detail: "missing or invalid token",
      hint: "send the header 'Authorization: Bearer TOKEN' with the content of the token file",
    });
  }
  return new OpenStarryError("unauthenticated", {
    detail: "the authenticator returned a value that is not a principal",
    hint: "ask the operator to check the plugin that provides the slot authenticator",
  });
}
