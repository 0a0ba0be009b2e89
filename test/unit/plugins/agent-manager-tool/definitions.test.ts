import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { type Operation, operation } from "../../../../core/index.js";
import { toolsOf } from "../../../../plugins/agent-manager-tool/tools/tool-table.js";
import operationAgents from "../../../../plugins/operation-agents/index.js";
import operationBus from "../../../../plugins/operation-bus/index.js";
import operationTemplates from "../../../../plugins/operation-templates/index.js";
import { createPluginHost } from "../../../helpers/plugin-host.js";

const FILE = fileURLToPath(
  new URL("../../../../plugins/agent-manager-tool/tools/definitions.generated.ts", import.meta.url),
);

/** In the order in which a model needs them. */
const ORDER = [
  "agent:templates",
  "agent:start",
  "agent:wait",
  "agent:result",
  "agent:status",
  "agent:list",
  "agent:logs",
  "agent:why",
  "agent:send",
  "agent:restart",
  "agent:stop",
];

it("the client's tool definitions are those of the operation table; npm run generate refreshes them", async () => {
  const host = createPluginHost({
    plugins: [operationAgents, operationTemplates, operationBus].map(({ definition }) => ({
      definition,
      options: {},
    })) as never,
  });
  const operations = [...host.use(operation).values()] as unknown as Operation[];
  const tools = JSON.stringify(toolsOf(operations, ORDER), undefined, 2);
  const text =
    "// Written by `npm run generate` from the tools of the operations; a test holds it to them.\n" +
    `export const GENERATED = ${tools} as const;\n`;
  await expect(text).toMatchFileSnapshot(FILE);
});
