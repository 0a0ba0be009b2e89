import type { Denial, OperationRequest } from "./hooks.js";
import { defineSlot } from "./slot.js";

/** What an authorizer decides about one request. */
export type Verdict = { readonly verdict: "allow" } | ({ readonly verdict: "deny" } & Readonly<Denial>);

/**
 * Decides who may do what: principal × operation → verdict. It is asked for every operation that is not `public`, from
 * any transport, after authentication and validation and before the taps of `onRequest`, which can only deny.
 *
 * The kernel fails closed: when no authorizer answers (none is there, it throws, it does not settle within
 * `tapDeadlineMs`, its answer is no verdict), only the operator and the daemon's own parts are let through.
 */
export interface Authorizer {
  authorize(request: OperationRequest): Verdict | Promise<Verdict>;
}

export const authorizer = defineSlot<Authorizer>("authorizer", "one");
