import type { Readable, Writable } from "node:stream";
import type { Client } from "../../plugins/agent-manager-tool/client/client.js";
import { createAgentManagerTool } from "../../plugins/agent-manager-tool/tools/tool.js";

export interface McpOptions {
  /** Whose agents these are: the operator's client, or an agent's own. */
  client: Client;
  /** Told to MCP clients. */
  version: string;
  /** Default: standard input. */
  input?: Readable;
  /** Default: standard output. Nothing but the protocol is ever written there. */
  output?: Writable;
}

const INSTRUCTIONS =
  "Manages agents: independent processes, started from templates, that work on their own and leave a result. " +
  "agent_templates tells what can be started; agent_start starts one; agent_wait waits for its end; agent_result " +
  "reads what it left; agent_stop with remove: true cleans up. Every failure says in its hint what to do next.";

/**
 * Serves the tools over the Model Context Protocol until the input ends. The protocol library is loaded
 * here and nowhere else: no other command should wait for it.
 */
export async function runMcp(options: McpOptions): Promise<void> {
  const { Server } = await import("@modelcontextprotocol/server");
  const { serveStdio, StdioServerTransport } = await import("@modelcontextprotocol/server/stdio");
  const tool = createAgentManagerTool({ client: options.client });
  const tools = tool.mcpTools();

  const createServer = () => {
    const server = new Server(
      { name: "openstarry-daemon", version: options.version },
      { capabilities: { tools: {} }, instructions: INSTRUCTIONS },
    );
    server.setRequestHandler("tools/list", () => ({ tools }));
    server.setRequestHandler("tools/call", async ({ params }, { mcpReq }) => {
      const result = await tool.execute(params.name, params.arguments, { signal: mcpReq.signal });
      return {
        content: [{ type: "text", text: JSON.stringify(result) }],
        structuredContent: { ...result },
        isError: !result.ok,
      };
    });
    return server;
  };

  const input = options.input ?? process.stdin;
  const transport = new StdioServerTransport(input, options.output ?? process.stdout);
  const ended = new Promise<void>((resolve) => {
    input.once("end", resolve);
    input.once("close", resolve);
  });
  const handle = serveStdio(createServer, { transport });
  await ended;
  await handle.close();
  options.client.close();
}
