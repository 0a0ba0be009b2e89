import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { fixtureAgent } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { operatorOf } from "../helpers/operator.js";
import { noPostgres, startPostgres, type TestPostgres } from "../helpers/postgres.js";
import { environOf } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const Needs = { template_id: "Needs", ...fixtureAgent("sleeper.sh"), requires: ["state"] };

let server: TestPostgres;
let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
}, 60_000);

describe.skipIf(noPostgres !== undefined)("state in PostgreSQL", () => {
  beforeAll(async () => {
    server = await startPostgres();
  }, 60_000);
  afterAll(() => server?.stop());

  test("an agent that requires it has it brought up, and finds the daemon's address of it", async () => {
    const it = await startDaemon({
      config: { plugins: [["state-postgres", { managed: true }]] },
      templates: [Needs],
      // Of somebody else's server: no concern of this one.
      env: { PGSSLMODE: "require", PGOPTIONS: "-c default_transaction_read_only=on" },
    });
    daemon = it;
    await expect(it.client.agents.get("svc:state-postgres")).rejects.toMatchObject({
      code: "agent_not_found",
    });
    await it.client.agents.create({ agent_id: "a", template_id: "Needs" });
    const { pid } = await it.client.agents.wait("a", { for: "ready", timeoutMs: 30_000 });
    expect(environOf(pid as number)["OPENSTARRY_STATE_URL"]).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/.*state$/);
    await it.client.state.put("agent:a", "k", { some: ["value"] });
    expect((await it.cli(["restart"])).code).toBe(0);
    const found = () => it.client.state.get("agent:a", "k").catch(() => undefined);
    expect(await waitFor(found, { what: "the next daemon to be connected" })).toMatchObject({
      value: { some: ["value"] },
    });
    await it.client.agents.remove("a");
    await waitFor(async () => (await it.client.state.get("agent:a", "k")) === undefined, {
      what: "the end of its namespace",
    });
  }, 90_000);

  test("a server that runs: away at the start, waited for, and its password nowhere to be seen", async () => {
    await server.end("SIGINT");
    const file = join(server.sockets, "for-the-daemon");
    writeFileSync(file, `${server.password}\n`, { mode: 0o600 });
    const url = `postgres://tester@/postgres?host=${server.sockets}`;
    const it = await startDaemon({
      config: { plugins: [["state-postgres", { url, password_file: file, schema: "e2e" }]] },
    });
    daemon = it;
    const operator = operatorOf(it.home);
    const { status, json } = await operator.get("/state/shared/k");
    expect([status, json["code"]]).toEqual([503, "state_unavailable"]);
    expect(json["detail"]).toMatch(/nobody listens there/);
    expect((await it.cli(["status"])).stdout).toMatch(
      /problem: plugin state-postgres: PostgreSQL at .*nobody listens/,
    );

    await server.start();
    const isWell = async () => (await it.client.daemon.status()).problems.length === 0;
    await waitFor(isWell, { what: "it to be connected", timeoutMs: 10_000 });
    await it.client.state.put("shared", "k", 1);
    expect(await server.sql("SELECT convert_from(key, 'UTF8') AS key, value FROM e2e.state_entries")).toEqual(
      [{ key: "k", value: "1" }],
    );
    for (const path of ["/infrastructure", "/plugins", "/healthz", "/metrics"]) await operator.get(path);
    const texts = [...operator.answers, readFileSync(join(it.home, "daemon.log"), "utf8")];
    const secrets = [server.password, encodeURIComponent(server.password)];
    expect(texts.some((text) => secrets.some((secret) => text.includes(secret)))).toBe(false);
  }, 90_000);
});
