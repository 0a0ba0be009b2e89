import { z } from "zod";
import { definePlugin, duration, percent, SpawnVetoed, templateSection } from "../../core/index.js";
import { createBudgets } from "./budgets.js";
import { budgetSection } from "./section.js";

const options = z.strictObject({
  /** From this part of a budget on it is told that it comes to an end. */
  warn_at: percent("the budget")
    .refine((share) => share >= 1 && share <= 100, "from 1% to 100%")
    .default(80),
  /** Who has used it up is told, and has so long before it is asked to stop. */
  grace: duration().default(30_000),
});

/** Keeps agents within what they, and all below them, may use by their own reports. */
export default definePlugin({
  name: "policy-budget",
  apiVersion: 1,
  provides: [templateSection],
  options,
  setup(ctx, { warn_at, grace }) {
    ctx.provide(templateSection, budgetSection);
    const budgets = createBudgets(ctx, { warnAt: warn_at, graceMs: grace });
    ctx.hooks.beforeSpawn.tap("refuse what has used up its budget", (spec) => {
      const refusal = budgets.refusal(spec.agentId);
      if (refusal !== undefined) throw new SpawnVetoed(refusal);
      return spec;
    });
    let unsubscribe = () => {};
    return {
      start() {
        const unsubscribers = [
          ctx.events.on("agent.heartbeat", ({ agent_id = "", data }) => {
            if (data.usage !== undefined) budgets.reported(agent_id);
          }),
          ctx.events.on("agent.deleted", ({ agent_id = "" }) => budgets.forget(agent_id)),
        ];
        unsubscribe = () => {
          for (const end of unsubscribers) end();
        };
        // What an earlier daemon heard, and did not live to act on.
        for (const { agent_id } of ctx.agents.list()) budgets.reported(agent_id);
      },
      stop() {
        unsubscribe();
        budgets.dispose();
      },
    };
  },
});
