import type { Agent } from "./agent.js";
import { defineSlot } from "./slot.js";

/** What makes an agent run, or have a record. */
export interface StartRequest {
  /** `create`: it gets a record. `start`: it has ended, and is to start again. */
  readonly kind: "create" | "start";
  /** As in `Intent`. */
  readonly actor: string;
}

/** Refuses agents by what else there is, such as a quota. Services are not asked about. */
export interface Admission {
  readonly name: string;
  /**
   * Throws an `OpenStarryError` to refuse. Called right before the request is recorded, and synchronous: nothing comes
   * between the answer and the record. Also called for a check that records nothing.
   */
  admit(agent: Agent, request: StartRequest): void;
}

export const admission = defineSlot<Admission, "many">("admission", "many");
