import { defineSlot } from "./slot.js";

/** Who asks. `id` is what `actor` fields show. */
export type Principal =
  | { readonly kind: "operator"; readonly id: string }
  | { readonly kind: "agent"; readonly id: string; readonly agentId: string; readonly runId: string }
  /** A plugin, or the daemon itself. */
  | { readonly kind: "internal"; readonly id: string }
  | { readonly kind: "anonymous"; readonly id: "anonymous" };

/** Turns credentials into a principal, and makes the credentials of runs. */
export interface Authenticator {
  /**
   * `undefined`: not valid (never had, revoked, its run is over). The answer is not awaited. A promise, or a principal
   * with a field missing, counts as anonymous.
   */
  authenticate(token: string): Principal | undefined;
  /** The credentials of one run. They stop being valid when the run is over. */
  mint(run: { agentId: string; runId: string }): string;
}

export const authenticator = defineSlot<Authenticator>("authenticator", "one");
