import { z } from "zod";
import { defineOperation, definePlugin, operation } from "../../core/index.js";
import { FORMATS, type Format } from "./tools/formats.js";

const formats = Object.keys(FORMATS) as [Format, ...Format[]];

const toolsList = defineOperation({
  name: "tools.list",
  summary: "The tools that let a model manage agents, as the definitions that its API takes.",
  scope: "any",
  input: z.strictObject({
    format: z.enum(formats).default("openai").meta({
      description: "Whose tool definitions: openai (chat completions), anthropic, mcp or openstarry.",
    }),
  }),
  output: z.object({ items: z.array(z.looseObject({})) }),
  http: { method: "GET", path: "/tools" },
  async handler({ format }) {
    return { items: FORMATS[format]() };
  },
});

/**
 * Tells agents in any language the tool definitions that `AgentManagerTool` has for those in
 * TypeScript. What the tools do happens on the agent's side, in `openstarry-daemon/agent-manager-tool`.
 */
export default definePlugin({
  name: "agent-manager-tool",
  apiVersion: 1,
  provides: [operation],
  options: z.strictObject({}),
  setup(ctx) {
    ctx.provide(operation, toolsList);
  },
});
