import type { Logger } from "../../contracts/plugin.js";

/** Calls to the hooks about one agent: in order, one after another. */
export interface HookQueue {
  /** One that fails does not keep the next from being called. */
  add(call: () => Promise<unknown>): void;
  /** Resolves when all that were added before are done. */
  done(): Promise<void>;
}

export function createHookQueue(agentId: string, log: Logger): HookQueue {
  let last: Promise<void> = Promise.resolve();
  return {
    add(call) {
      last = last.then(call).then(
        () => {},
        (error: unknown) => log.error({ agent_id: agentId, err: error }, "a hook failed"),
      );
    },
    done: () => last,
  };
}
