import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { authenticator } from "../../../../core/index.js";
import { type Client, createClient } from "../../../../plugins/agent-manager-tool/client/client.js";
import authenticatorTokens from "../../../../plugins/authenticator-tokens/index.js";
import authorizerTree from "../../../../plugins/authorizer-tree/index.js";
import busMemory from "../../../../plugins/bus-memory/index.js";
import httpApi from "../../../../plugins/http-api/index.js";
import operationBus from "../../../../plugins/operation-bus/index.js";
import { type Api, cleanUp, startApi, tidy } from "../../../helpers/http-api.js";

let api: Api;
let lead: Client;
let child: Client;
let over: AbortController;

beforeEach(async () => {
  const plugins = [
    busMemory(),
    operationBus(),
    authenticatorTokens(),
    authorizerTree(),
    httpApi({ port: 0 }),
  ];
  api = await startApi([], {}, { plugins, agents: [{ id: "lead" }, { id: "child", parent: "lead" }] });
  over = new AbortController();
  cleanUp(() => over.abort());
  [lead, child] = [clientOf("lead"), clientOf("child")];
});
afterEach(tidy);

function clientOf(agentId: string): Client {
  const token = api.host.use(authenticator).mint({ agentId, runId: `run-of-${agentId}` });
  const client = createClient({ url: `http://127.0.0.1:${api.port}`, token });
  cleanUp(() => client.close());
  return client;
}

describe("the client's bus", () => {
  it("publishes, and reads what is kept and what comes, across a lost connection", async () => {
    const first = await lead.bus.publish("shared/é 1", { n: 1 });
    expect(first).toEqual({ topic: "shared/é 1", position: expect.any(String) });
    const seen: unknown[] = [];
    for await (const message of child.bus.subscribe("shared/#", { after: "0", signal: over.signal })) {
      expect(message).toMatchObject({ topic: "shared/é 1", from: "agent:lead" });
      seen.push(message.payload);
      if (seen.length === 3) break;
      // The stream breaks before the next message comes.
      if (seen.length === 1) child.close();
      await lead.bus.publish("shared/é 1", { n: seen.length + 1 });
    }
    expect(seen).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }]);
  });

  it("asks, and is answered", async () => {
    const asked = lead.bus.request("agents/child/inbox", "how far?", { signal: over.signal });
    for await (const { payload, reply_to = "" } of child.bus.subscribe("agents/child/inbox", {
      after: "0",
      signal: over.signal,
    })) {
      await child.bus.publish(reply_to, `${payload} half`);
      break;
    }
    expect(await asked).toMatchObject({ payload: "how far? half", from: "agent:child" });
    const late = lead.bus.request("agents/child/inbox", "?", { timeoutMs: 50 });
    await expect(late).rejects.toMatchObject({ code: "timeout" });
  });

  it("settles what comes to a member of a group", async () => {
    for (const n of [1, 2]) await lead.bus.publish("shared/jobs", n);
    const seen: [unknown, number][] = [];
    const query = { group: "g", after: "0", ackWaitMs: 60_000, signal: over.signal };
    for await (const { message, attempt, ack, nack } of child.bus.consume("shared/jobs", query)) {
      seen.push([message.payload, attempt]);
      if (seen.length === 1) await nack();
      else await ack();
      if (seen.length === 3) break;
    }
    expect(seen).toEqual([
      [1, 1],
      [1, 2],
      [2, 1],
    ]);
  });

  it("is refused what it may not reach", async () => {
    const foreign = child.bus.subscribe("agents/lead/inbox", { signal: over.signal }).next();
    await expect(foreign).rejects.toMatchObject({ code: "forbidden" });
    await expect(child.bus.publish("openstarry/x", 1)).rejects.toMatchObject({ code: "forbidden" });
  });
});
