import { PassThrough } from "node:stream";
import { afterEach, describe, expect, it } from "vitest";
import { runMcp } from "../../../bin/commands/mcp.js";
import { createClient } from "../../../plugins/agent-manager-tool/client/client.js";
import { type FakeApi, type Route, startFakeApi } from "../../helpers/fake-api.js";

let api: FakeApi | undefined;

afterEach(async () => {
  await api?.close();
  api = undefined;
});

async function serve(route: Route) {
  api = await startFakeApi(route);
  const [input, output] = [new PassThrough(), new PassThrough()];
  const client = createClient({ url: api.url, token: "t" });
  const ended = runMcp({ client, version: "1.2.3", input, output });
  const lines = output[Symbol.asyncIterator]();
  let rest = "";
  return {
    send: (message: object) => input.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`),
    async next(): Promise<Record<string, unknown>> {
      while (!rest.includes("\n")) rest += String((await lines.next()).value);
      const [line = "", ...others] = rest.split("\n");
      rest = others.join("\n");
      return JSON.parse(line);
    },
    end() {
      input.end();
      return ended;
    },
  };
}

const hello = { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "test", version: "1" } };

describe("MCP over stdio", () => {
  it("lists the tools, calls them, and ends when its input ends", async () => {
    const server = await serve(() => ({ items: [] }));
    server.send({ id: 1, method: "initialize", params: hello });
    expect(await server.next()).toMatchObject({
      result: { protocolVersion: "2025-06-18", serverInfo: { name: "openstarry-daemon", version: "1.2.3" } },
    });
    server.send({ method: "notifications/initialized" });
    server.send({ id: 2, method: "tools/list" });
    const { result } = (await server.next()) as { result: { tools: { name: string }[] } };
    expect(result.tools.map(({ name }) => name)).toContain("agent_start");
    server.send({ id: 3, method: "tools/call", params: { name: "agent_list", arguments: {} } });
    expect(await server.next()).toEqual({
      jsonrpc: "2.0",
      id: 3,
      result: {
        content: [{ type: "text", text: '{"ok":true,"data":{"agents":[]}}' }],
        structuredContent: { ok: true, data: { agents: [] } },
        isError: false,
      },
    });
    server.send({ id: 4, method: "tools/call", params: { name: "agent_status" } });
    expect(await server.next()).toMatchObject({ id: 4, result: { isError: true } });
    await server.end();
  });

  it("answers other calls while one waits, and aborts a cancelled call", async () => {
    let gone: (() => void) | undefined;
    const cancelled = new Promise<void>((resolve) => {
      gone = resolve;
    });
    const server = await serve(({ path }, response) => {
      if (!path.includes("wait_for")) return { agent_id: "a", state: "running", labels: {}, restarts: 0 };
      response.once("close", () => gone?.());
      return undefined;
    });
    server.send({ id: 1, method: "initialize", params: hello });
    await server.next();
    server.send({ method: "notifications/initialized" });
    server.send({
      id: 2,
      method: "tools/call",
      params: { name: "agent_wait", arguments: { agent_ids: ["a"] } },
    });
    server.send({
      id: 3,
      method: "tools/call",
      params: { name: "agent_status", arguments: { agent_id: "a" } },
    });
    expect(await server.next()).toMatchObject({ id: 3, result: { isError: false } });
    while (!api?.seen.some(({ path }) => path.includes("wait_for"))) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    server.send({ method: "notifications/cancelled", params: { requestId: 2 } });
    await cancelled;
    await server.end();
  });
});
