import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test } from "vitest";
import { type Client, createClient } from "../../plugins/agent-manager-tool/client/client.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { ask } from "../helpers/http-request.js";
import { environOf } from "../helpers/processes.js";

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/plugins/${name}.mjs`, import.meta.url));
const OWN_AUTHENTICATOR = fixture("own-authenticator");
const CARELESS_AUTHENTICATOR = fixture("careless-authenticator");
const BROKEN_AUTHORIZER = fixture("broken-authorizer");
const templates = [
  { template_id: "Parent", command: "sleep", args: ["100000"], children: { max: 2, depth: 1 } },
  { template_id: "Sleeper", command: "sleep", args: ["100000"] },
];

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

/** A daemon with the agents `boss` and `stranger`, and a client that speaks with the token of boss's run. */
async function withAgents(plugins: unknown[]): Promise<{ daemon: TestDaemon; boss: Client; token: string }> {
  const it = await startDaemon({ config: { plugins }, templates });
  daemon = it;
  for (const [agent_id, template_id] of [
    ["boss", "Parent"],
    ["stranger", "Sleeper"],
  ] as const) {
    await it.client.agents.create({ agent_id, template_id });
    await it.client.agents.wait(agent_id, { for: "ready" });
  }
  const { pid = 0 } = await it.client.agents.get("boss");
  const tokenFile = environOf(pid)["OPENSTARRY_TOKEN_FILE"] ?? "";
  return {
    daemon: it,
    boss: createClient({ home: it.home, tokenFile, agentId: "boss" }),
    token: readFileSync(tokenFile, "utf8"),
  };
}

describe("a config plugin that provides the authenticator", () => {
  test("does not give an agent's token more than the authorizer allows", async () => {
    const { daemon: it, boss, token } = await withAgents([OWN_AUTHENTICATOR]);
    expect(token).toMatch(/^run:/);
    expect((await it.client.plugins()).items.map(({ name }) => name)).toEqual(
      expect.arrayContaining(["own-authenticator", "authorizer-tree"]),
    );
    expect(await boss.whoami()).toMatchObject({ kind: "agent", agent_id: "boss" });
    await boss.agents.create({ agent_id: "child", template_id: "Sleeper" });
    expect((await boss.agents.get("child")).parent_id).toBe("boss");
    expect((await boss.agents.list()).items.map(({ agent_id }) => agent_id).sort()).toEqual([
      "boss",
      "child",
    ]);

    const forbidden = { code: "forbidden" };
    await expect(boss.agents.stop("stranger")).rejects.toMatchObject(forbidden);
    await expect(boss.agents.remove("stranger")).rejects.toMatchObject(forbidden);
    await expect(boss.agents.stop("boss")).rejects.toMatchObject(forbidden);
    await expect(boss.agents.create({ agent_id: "x", command: ["true"] })).rejects.toMatchObject(forbidden);
    await expect(boss.daemon.stop()).rejects.toMatchObject(forbidden);
    await expect(boss.templates.delete("Sleeper")).rejects.toMatchObject(forbidden);
    expect((await it.client.agents.get("stranger")).state).toBe("running");
  });
});

describe("a config plugin whose authenticator answers with what is not a principal", () => {
  test("gives the bearer of such a token no rights", async () => {
    const { daemon: it } = await withAgents([CARELESS_AUTHENTICATOR]);
    const { port } = JSON.parse(readFileSync(join(it.home, "daemon.json"), "utf8"));
    for (const token of ["later", "no-run"]) {
      for (const path of ["/agents", "/agents/boss", "/templates", "/metrics", "/whoami"]) {
        const { status, text } = await ask({ at: port, token, method: "GET", path });
        expect([path, status, text]).toEqual([path, 401, expect.stringContaining("not a principal")]);
      }
    }
    expect((await it.client.agents.list()).items).toHaveLength(2);
  });
});

describe("a config plugin that provides an authorizer which fails", () => {
  test("lets the operator work and denies every agent", async () => {
    const { daemon: it, boss } = await withAgents([BROKEN_AUTHORIZER]);
    await expect(boss.whoami()).rejects.toMatchObject({
      code: "forbidden",
      message: "daemon.whoami was denied: the daemon has no answer of its authorizer",
    });
    await expect(boss.heartbeat({ status: "x" })).rejects.toMatchObject({ code: "forbidden" });
    await expect(boss.agents.stop("stranger")).rejects.toMatchObject({ code: "forbidden" });
    const { problems } = await it.client.daemon.status();
    expect(problems).toEqual([expect.stringMatching(/authorizer gives no verdict.*out of order/)]);
    await it.client.agents.stop("stranger");
    expect((await it.client.agents.get("stranger")).state).toBe("stopped");
  });
});
