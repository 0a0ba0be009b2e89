import { z } from "zod";
import { definePlugin, operation } from "../../core/index.js";
import { templateOperations } from "./operations.js";

/** Operations about the Agent Design Layer. */
export default definePlugin({
  name: "operation-templates",
  apiVersion: 1,
  provides: [operation],
  options: z.strictObject({}),
  setup(ctx) {
    for (const it of templateOperations(ctx)) ctx.provide(operation, it);
  },
});
