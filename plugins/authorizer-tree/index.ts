import { z } from "zod";
import { authorizer, definePlugin } from "../../core/index.js";
import { decideAccess } from "./access.js";

/** Lets an agent act on itself and on the tree of agents below it, and the operator on everything. */
export default definePlugin({
  name: "authorizer-tree",
  apiVersion: 1,
  provides: [authorizer],
  options: z.strictObject({}),
  setup(ctx) {
    ctx.provide(authorizer, {
      authorize(request) {
        const denial = decideAccess(request, ctx.agents);
        return denial ? { verdict: "deny", ...denial } : { verdict: "allow" };
      },
    });
  },
});
