import { z } from "zod";
import { definePlugin, operation, restartPolicy, sampler, spawner } from "../../core/index.js";
import { controlOperations, deleteOperations } from "./control.js";
import { createOperations } from "./create.js";
import { eventOperations } from "./events.js";
import { heartbeatOperations } from "./heartbeat.js";
import { logOperations } from "./logs.js";
import { readOperations } from "./read.js";
import { createSampleHistory } from "./sample-history.js";
import { sampleOperations } from "./samples.js";
import { whyOperations } from "./why/why.js";

/** Everything that can be asked about agents. */
export default definePlugin({
  name: "operation-agents",
  apiVersion: 1,
  optional: [restartPolicy, spawner, sampler],
  provides: [operation],
  options: z.strictObject({
    samples: z.int().min(1).max(100_000).default(300).meta({
      description: "How many samples of what an agent uses are kept, 18 bytes each.",
    }),
  }),
  setup(ctx, { samples: keep }) {
    const history = createSampleHistory(keep);
    ctx.hooks.onResourceSample.tap({ name: "remember", stage: "RECORD" }, ({ samples }) => {
      for (const sample of samples) history.add(sample);
    });
    const operations = [
      ...createOperations(ctx),
      ...readOperations(ctx),
      ...controlOperations(ctx),
      ...deleteOperations(ctx),
      ...heartbeatOperations(ctx),
      ...logOperations(ctx),
      ...eventOperations(ctx),
      ...whyOperations(ctx, history),
      ...sampleOperations(ctx, history),
    ];
    for (const it of operations) ctx.provide(operation, it);
    return {
      start() {
        ctx.events.on("agent.deleted", ({ agent_id }) => {
          if (agent_id !== undefined) history.forget(agent_id);
        });
      },
    };
  },
});
