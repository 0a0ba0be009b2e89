import { z } from "zod";
import { definePlugin, restartPolicy, templateSection } from "../../core/index.js";
import { decide, used } from "./decide.js";
import { restartSection } from "./section.js";

/** Restarts with intensity and backoff. */
export default definePlugin({
  name: "restart-policy-intensity",
  apiVersion: 1,
  provides: [restartPolicy, templateSection],
  options: z.strictObject({
    jitter: z.enum(["full", "none"]).default("full").meta({
      description: "full: wait anything from nothing to the backoff; none: always the backoff itself.",
    }),
  }),
  setup(ctx, options) {
    ctx.provide(templateSection, restartSection);
    ctx.provide(restartPolicy, {
      decide: (input) => decide(input, { jitter: options.jitter, random: Math.random }),
      used,
    });
  },
});
