import { z } from "zod";
import { definePlugin, operation, spawner } from "../../core/index.js";
import { controlOperations, deleteOperations } from "./control.js";
import { createOperations } from "./create.js";
import { eventOperations } from "./events.js";
import { heartbeatOperations } from "./heartbeat.js";
import { logOperations } from "./logs.js";
import { readOperations } from "./read.js";
import { whyOperations } from "./why.js";

/** Everything that can be asked about agents. */
export default definePlugin({
  name: "operation-agents",
  apiVersion: 1,
  optional: [spawner],
  provides: [operation],
  options: z.strictObject({}),
  setup(ctx) {
    const operations = [
      ...createOperations(ctx),
      ...readOperations(ctx),
      ...controlOperations(ctx),
      ...deleteOperations(ctx),
      ...heartbeatOperations(ctx),
      ...logOperations(ctx),
      ...eventOperations(ctx),
      ...whyOperations(ctx),
    ];
    for (const it of operations) ctx.provide(operation, it);
  },
});
