import { z } from "zod";
import { definePlugin, startGate } from "../../core/index.js";
import { createMasterFirst } from "./master-first.js";

/** Starts the master before the other agents when the daemon starts. */
export default definePlugin({
  name: "start-gate-master-first",
  apiVersion: 1,
  provides: [startGate],
  options: z.strictObject({}),
  setup(ctx) {
    const masterFirst = createMasterFirst(ctx.clock, (id) => ctx.agents.details(id)?.stored);
    ctx.provide(startGate, {
      name: "master-first",
      blocker: ({ agent }) => masterFirst.blocker(agent.agent_id),
    });
    return {
      start() {
        const configured = ctx.agents.configured();
        const [master] = configured;
        // One that cannot be read is not started.
        if (master === undefined || ctx.agents.quarantined(master) !== undefined) return;
        masterFirst.begin(master, [...configured, ...ctx.agents.list().map(({ agent_id }) => agent_id)]);
      },
    };
  },
});
