import { z } from "zod";
import { definePlugin, sampler } from "../../core/index.js";
import { sampleInterval } from "../kit/sample-interval.js";
import { createProcfsSampler } from "./procfs-sampler.js";

/** The sampler `procfs`: reads /proc by itself. */
export default definePlugin({
  name: "sampler-procfs",
  apiVersion: 1,
  provides: [sampler],
  options: z.strictObject({ interval: sampleInterval() }),
  setup(ctx, { interval }) {
    ctx.provide(sampler, createProcfsSampler(interval));
  },
});
