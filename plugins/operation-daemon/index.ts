import { z } from "zod";
import { definePlugin, operation } from "../../core/index.js";
import { controlOperations } from "./control.js";
import { metricsOperation } from "./metrics.js";
import { statusOperations } from "./status.js";
import { whoamiOperation } from "./whoami.js";

/** Operations about the daemon itself. */
export default definePlugin({
  name: "operation-daemon",
  apiVersion: 1,
  provides: [operation],
  options: z.strictObject({}),
  setup(ctx) {
    const operations = [
      ...statusOperations(ctx),
      whoamiOperation(ctx),
      metricsOperation(ctx),
      ...controlOperations(ctx),
    ];
    for (const it of operations) ctx.provide(operation, it);
  },
});
