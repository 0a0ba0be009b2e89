import { z } from "zod";
import { defineOperation, definePlugin, type Operation, operation } from "../../core/index.js";
import { findTool, TOOL_NAMES } from "./tools/definitions.js";
import { FORMATS, type Format } from "./tools/formats.js";
import { toolsOf } from "./tools/tool-table.js";

const formats = Object.keys(FORMATS) as [Format, ...Format[]];

function toolsList(operations: () => Operation[]): Operation<never> {
  return defineOperation({
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
      // Only what `execute` of this package can carry out.
      const tools = toolsOf(operations(), TOOL_NAMES).filter(({ name }) => findTool(name) !== undefined);
      return { items: FORMATS[format](tools) };
    },
  });
}

/**
 * Tells agents in any language the tools of the operations that there are. What a tool does happens on the agent's side, in `openstarry-daemon/agent-manager-tool`.
 */
export default definePlugin({
  name: "agent-manager-tool",
  apiVersion: 1,
  provides: [operation],
  options: z.strictObject({}),
  setup(ctx) {
    const operations = () => [...ctx.use(operation).values()] as unknown as Operation[];
    ctx.provide(operation, toolsList(operations));
  },
});
