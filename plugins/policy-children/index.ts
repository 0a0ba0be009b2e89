import { z } from "zod";
import { admission, definePlugin, templateSection } from "../../core/index.js";
import { createChildPolicy } from "./child-policy.js";
import { checkQuota } from "./quota.js";
import { childrenSection, detachSection } from "./sections.js";

/** Limits how many children an agent has, and stops or reparents them when it ends. */
export default definePlugin({
  name: "policy-children",
  apiVersion: 1,
  provides: [templateSection, admission],
  options: z.strictObject({}),
  setup(ctx) {
    ctx.provide(templateSection, childrenSection);
    ctx.provide(templateSection, detachSection);
    ctx.provide(admission, {
      name: "children",
      admit: (agent, request) => checkQuota(agent, request, ctx.agents),
    });
    const children = createChildPolicy(ctx);
    ctx.events.on("agent.state", ({ agent_id = "" }) => children.onAgentEnded(agent_id));
    ctx.events.on("agent.deleted", ({ agent_id = "" }) => children.onAgentDeleted(agent_id));
    // Events wait for the journal, and the end of children does not.
    ctx.hooks.afterExit.tap("stop or reparent its children", ({ agent }) =>
      children.onAgentEnded(agent.agent_id),
    );
    return { start: () => children.catchUp() };
  },
});
