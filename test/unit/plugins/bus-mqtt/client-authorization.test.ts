import { describe, expect, it } from "vitest";
import type { Principal } from "../../../../core/index.js";
import { createClientAuthorization } from "../../../../plugins/bus-mqtt/daemon/client-authorization.js";

/** How the broker is told who a client is whose token the authenticator answers with this. */
function identityOf(answer: unknown): Promise<object> {
  const authorize = createClientAuthorization({
    has: () => true,
    use: () => ({ authenticate: () => answer as Principal, mint: () => "" }) as never,
    agents: {} as never,
    dispatch: async () => {
      throw new Error("no operation is needed to identify a client");
    },
  });
  return authorize({ header: { do: "identify", token: "secret" } } as never);
}

describe("the identity of an MQTT client", () => {
  it("is that of the principal", async () => {
    expect(await identityOf({ kind: "operator", id: "operator" })).toEqual({
      identity: { name: "operator" },
    });
    expect(await identityOf({ kind: "agent", id: "agent:a", agentId: "a", runId: "r" })).toEqual({
      identity: { name: "agent:a", agentId: "a", runId: "r" },
    });
  });

  it.each([
    ["an agent without a run", { kind: "agent", id: "agent:a", agentId: "a" }],
    ["an agent without an id of an agent", { kind: "agent", id: "agent:a", runId: "r" }],
    ["an unknown kind", { kind: "user", id: "user:u" }],
    ["a promise", Promise.resolve({ kind: "operator", id: "operator" })],
    ["an invalid token", undefined],
  ])("is absent, and never the operator's, for %s", async (_, answer) => {
    expect(await identityOf(answer)).toEqual({ identity: undefined });
  });
});
