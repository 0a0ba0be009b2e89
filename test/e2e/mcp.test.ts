import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { pythonWithMcp } from "../helpers/python-mcp.js";

const COMMAND = fileURLToPath(new URL("../../dist/bin/openstarry-daemon.js", import.meta.url));
const CLIENT = fileURLToPath(new URL("../fixtures/mcp_client.py", import.meta.url));
const ADD = `
  const fs = require("node:fs");
  const { a, b } = JSON.parse(fs.readFileSync(process.env.OPENSTARRY_PARAMS_FILE, "utf8"));
  fs.writeFileSync(process.env.OPENSTARRY_RESULT_FILE, String(a + b));
`;

let daemon: TestDaemon;

beforeAll(async () => {
  daemon = await startDaemon({
    templates: [
      {
        template_id: "Adder_v1",
        description: "Adds two numbers.",
        command: process.execPath,
        args: ["-e", ADD],
        params: { a: { type: "number" }, b: { type: "number" } },
        restart: { policy: "never" },
      },
    ],
  });
});
afterAll(() => daemon?.stop());

/** `openstarry-daemon mcp` with lines going in and out. */
function startServer() {
  const child = spawn(process.execPath, [COMMAND, "mcp"], {
    env: { ...process.env, OPENSTARRY_HOME: daemon.home },
    stdio: ["pipe", "pipe", "pipe"],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text) => {
    stderr += text;
  });
  return {
    send: (message: unknown) =>
      child.stdin.write(`${typeof message === "string" ? message : JSON.stringify(message)}\n`),
    async next(): Promise<Record<string, unknown>> {
      const { value, done } = await lines.next();
      if (done) throw new Error(`the server ended: ${stderr}`);
      return JSON.parse(value);
    },
    end: () =>
      new Promise<{ code: number | null; stderr: string }>((resolve) => {
        child.once("close", (code) => resolve({ code, stderr }));
        child.stdin.end();
      }),
  };
}

const initialize = (protocolVersion: string) => ({
  jsonrpc: "2.0",
  id: 1,
  method: "initialize",
  params: { protocolVersion, capabilities: {}, clientInfo: { name: "test", version: "1" } },
});

describe("openstarry-daemon mcp", () => {
  it.each(["2025-06-18", "2025-03-26", "2024-11-05"])(
    "speaks protocol %s, and nothing else on stdout",
    async (version) => {
      const server = startServer();
      server.send(initialize(version));
      expect(await server.next()).toMatchObject({
        id: 1,
        result: {
          protocolVersion: version,
          serverInfo: { name: "openstarry-daemon" },
          capabilities: { tools: {} },
        },
      });
      server.send({ jsonrpc: "2.0", method: "notifications/initialized" });
      server.send("this is not JSON");
      server.send({ jsonrpc: "2.0", id: 2, method: "ping" });
      expect(await server.next()).toEqual({ jsonrpc: "2.0", id: 2, result: {} });
      server.send({ jsonrpc: "2.0", id: 3, method: "no/such" });
      expect(await server.next()).toMatchObject({ id: 3, error: { code: -32601 } });
      server.send({
        jsonrpc: "2.0",
        id: 4,
        method: "tools/call",
        params: { name: "agent_strat", arguments: {} },
      });
      expect(await server.next()).toMatchObject({
        id: 4,
        result: { isError: true, structuredContent: { ok: false, error: { code: "operation_unknown" } } },
      });
      expect(await server.end()).toEqual({ code: 0, stderr: "" });
    },
  );

  const sdk = pythonWithMcp();
  if ("missing" in sdk) console.warn(`skipped: ${sdk.missing}`);

  it.skipIf("missing" in sdk)("serves a master that is a Python program with the public SDK", async () => {
    const python = "python" in sdk ? sdk.python : "";
    const child = spawn(python, [CLIENT, process.execPath, COMMAND, "mcp"], {
      env: { ...process.env, OPENSTARRY_HOME: daemon.home },
      stdio: ["ignore", "pipe", "inherit"],
    });
    const seen: Record<string, unknown>[] = [];
    for await (const line of createInterface({ input: child.stdout })) seen.push(JSON.parse(line));
    const [hello, tools, ...calls] = seen;
    expect(hello).toMatchObject({ server: "openstarry-daemon" });
    expect(tools).toMatchObject({
      tools: expect.arrayContaining(["agent_start", "agent_wait", "agent_result"]),
    });
    expect(calls).toMatchObject([
      { call: "agent_templates", ok: true, data: { templates: [{ template_id: "Adder_v1" }] } },
      {
        call: "agent_start",
        is_error: true,
        error: { code: "params_invalid", hint: expect.stringContaining("a (number, required)") },
      },
      { call: "agent_start", is_error: false, data: { agent_id: "adder" } },
      { call: "agent_wait", data: { done: true } },
      { call: "agent_result", data: { result: 42 } },
      { call: "agent_stop", data: { removed: true } },
      { call: "agent_status", is_error: true, error: { code: "agent_not_found" } },
    ]);
  });
});
