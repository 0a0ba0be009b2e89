import { z } from "zod";
import { definePlugin, sampler } from "../../core/index.js";
import { sampleInterval } from "../kit/sample-interval.js";
import { createPidusageSampler } from "./pidusage-sampler.js";

/** The sampler `pidusage`: the library of that name reads what agents use. */
export default definePlugin({
  name: "sampler-pidusage",
  apiVersion: 1,
  provides: [sampler],
  options: z.strictObject({ interval: sampleInterval() }),
  setup(ctx, { interval }) {
    ctx.provide(sampler, createPidusageSampler(interval));
  },
});
