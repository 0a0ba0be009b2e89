import { defineSlot } from "./slot.js";
import type { StoredAgent } from "./stored-agent.js";

/** Decides when agents that are about to start may start. Services are not asked about. */
export interface StartGate {
  readonly name: string;
  /**
   * Says why the agent has to wait in `pending`, in words: shown as its reason. `undefined`: it may start. Asked
   * again whenever an agent changes, and every few seconds. An agent waits while a gate throws.
   */
  blocker(agent: StoredAgent): string | undefined;
}

export const startGate = defineSlot<StartGate, "many">("startGate", "many");
