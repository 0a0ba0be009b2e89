import { admission, type StartRequest } from "../contracts/admission.js";
import { type Agent, isService } from "../contracts/agent.js";
import { isOpenStarryError, OpenStarryError } from "../contracts/errors.js";
import { startGate } from "../contracts/start-gate.js";
import type { StoredAgent } from "../contracts/stored-agent.js";
import type { SlotRegistry } from "../host/slots.js";
import { errorText } from "../lib/error-text.js";

/** Throws what an admission throws. */
export function requireAdmission(
  slots: Pick<SlotRegistry, "use">,
  agent: Agent,
  request: StartRequest,
): void {
  if (isService(agent)) return;
  for (const it of slots.use(admission).values()) {
    try {
      it.admit(agent, request);
    } catch (cause) {
      if (isOpenStarryError(cause)) throw cause;
      throw new OpenStarryError("plugin_failed", {
        detail: `admission ${it.name} failed: ${errorText(cause)}`,
        cause,
      });
    }
  }
}

/** Says why a start gate has the agent wait; `undefined`: none does. */
export function blockerOfGates(slots: Pick<SlotRegistry, "use">, stored: StoredAgent): string | undefined {
  if (isService(stored.agent)) return undefined;
  for (const gate of slots.use(startGate).values()) {
    try {
      const reason = gate.blocker(stored);
      if (reason !== undefined) return reason;
    } catch (error) {
      return `start gate ${gate.name} failed: ${errorText(error)}`;
    }
  }
  return undefined;
}
