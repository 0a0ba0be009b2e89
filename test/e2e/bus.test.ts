import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Client, clientFromEnv } from "../../plugins/agent-manager-tool/client/client.js";
import { createAgentManagerTool } from "../../plugins/agent-manager-tool/tools/tool.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";

const IDLE = "setInterval(() => {}, 1000)";
/** An agent that uses only HTTP and its environment: it answers the messages in its inbox. */
const ANSWER = `
  const { readFileSync } = require("node:fs");
  const { OPENSTARRY_BUS_URL: bus, OPENSTARRY_AGENT_ID: me, OPENSTARRY_TOKEN_FILE: file } = process.env;
  const headers = {
    authorization: "Bearer " + readFileSync(file, "utf8").trim(),
    "content-type": "application/json",
  };
  const post = (url, body) => fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
  (async () => {
    const inbox = await fetch(bus + "/agents/" + me + "/inbox?group=work&after=0", { headers });
    let text = "";
    for await (const chunk of inbox.body.pipeThrough(new TextDecoderStream())) {
      const events = (text + chunk).split("\\n\\n");
      text = events.pop();
      for (const event of events) {
        const data = /^data: (.*)$/m.exec(event)?.[1];
        if (!data) continue;
        const { payload, from, reply_to, ack } = JSON.parse(data);
        if (payload === "die") process.exit(3);
        await post(bus + "/" + reply_to, { payload: { from, payload } });
        await post(bus + "-ack", { ack });
      }
    }
  })();
`;

let daemon: TestDaemon;
let env: NodeJS.ProcessEnv;
let master: Client;

beforeAll(async () => {
  const node = { command: process.execPath };
  daemon = await startDaemon({
    templates: [
      { template_id: "Master_v1", ...node, args: ["-e", IDLE], children: { max: 4 } },
      {
        template_id: "Answerer_v1",
        ...node,
        args: ["-e", ANSWER],
        requires: ["bus"],
        restart: { policy: "never" },
      },
    ],
    config: { plugins: ["bus-memory"], agents: [{ agent_id: "master", template_id: "Master_v1" }] },
  });
  const agent = await daemon.client.agents.wait("master", { for: "ready", timeoutMs: 10_000 });
  const pairs = readFileSync(`/proc/${agent.pid}/environ`, "utf8").split("\0").filter(Boolean);
  env = Object.fromEntries(
    pairs.map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]),
  );
  master = clientFromEnv(env);
});
afterAll(async () => {
  master?.close();
  await daemon?.stop();
});

describe("agents with a bus", () => {
  it("an agent sends a request to another's inbox, gets the reply, and sees its exit event", async () => {
    const tool = createAgentManagerTool({ env });
    const start = { template_id: "Answerer_v1", agent_id: "answerer" };
    expect(await tool.execute("agent:start", start)).toMatchObject({ ok: true });
    // The message waits if the agent has not opened its inbox yet.
    const message = '{"question": "are you there?"}';
    const ask = { agent_id: "answerer", message, wait_for_reply: true, timeout: "30s" };
    expect(await tool.execute("agent:send", ask)).toMatchObject({
      ok: true,
      data: { reply: { from: "agent:master", payload: { question: "are you there?" } } },
    });
    await tool.execute("agent:send", { agent_id: "answerer", message: "die" });
    const signal = AbortSignal.timeout(30_000);
    const topic = "openstarry/events/agent.exited/answerer";
    const { value } = await master.bus.subscribe(topic, { after: "0", signal }).next();
    expect(value).toMatchObject({ payload: { type: "agent.exited", data: { code: 3 } } });
    const presence: unknown[] = [];
    for await (const one of master.bus.subscribe("openstarry/presence/answerer", { after: "0", signal })) {
      presence.push((one.payload as { present: boolean }).present);
      if (presence.length === 2) break;
    }
    expect(presence).toEqual([true, false]);
  });

  it("sending to an unknown agent is refused, with the known agents in the hint", async () => {
    const tool = createAgentManagerTool({ env });
    const sent = await tool.execute("agent:send", { agent_id: "answrer", message: "x" });
    expect(sent).toMatchObject({
      ok: false,
      error: { code: "forbidden", hint: expect.stringContaining("answerer") },
    });
  });
});
