import { z } from "zod";
import type { OperationTool } from "../../core/index.js";

export const templatesTool: OperationTool = {
  name: "agent:templates",
  title: "List agent templates",
  effect: "read",
  description:
    "Lists the templates that agents can be started from: id, what such an agent does, and which params it " +
    "takes (required ones and their types). Call this before agent:start unless you know the template.",
  input: z.strictObject({
    template_id: z.string().optional().meta({ description: "Only this template. Leave out to list all." }),
  }),
};
