import { z } from "zod";
import { definePlugin, duration, sampler, spawner } from "../../core/index.js";
import { createSampling, type Sampling } from "./sampling.js";

const options = z.strictObject({
  /** How long the sampler, or a spawner, may take to answer. */
  timeout: duration()
    .refine((ms) => ms >= 1, "expected more than nothing")
    .default(10_000),
});

/** Has the sampler measure what live runs use, and reports it. Without a sampler it does nothing. */
export default definePlugin({
  name: "sampler-runner",
  apiVersion: 1,
  optional: [spawner, sampler],
  options,
  setup(ctx, { timeout }) {
    let sampling: Sampling | undefined;
    ctx.hooks.onDaemonReady.tap("start measuring", () => {
      if (!ctx.has(sampler)) return;
      sampling = createSampling(ctx, { sampler: ctx.use(sampler), deadlineMs: timeout });
      sampling.start();
    });
    ctx.hooks.onDaemonStopping.tap("stop measuring", () => sampling?.stop());
    return { stop: () => sampling?.stop() };
  },
});
