import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { fixtureAgent } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { environOf, seeProcess } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const Plain = { template_id: "Plain", ...fixtureAgent("sleeper.sh") };
const Needs = { template_id: "Needs", ...fixtureAgent("sleeper.sh"), requires: ["bus"] };

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

async function start(): Promise<TestDaemon> {
  daemon = await startDaemon({ templates: [Plain, Needs] });
  return daemon;
}

/** Reads the first `count` kept messages that match a filter. */
async function readKept(it: TestDaemon, filter: string, count: number): Promise<unknown[]> {
  const seen: unknown[] = [];
  const signal = AbortSignal.timeout(20_000);
  for await (const { payload } of it.client.bus.subscribe(filter, { after: "0", signal })) {
    seen.push(payload);
    if (seen.length === count) break;
  }
  return seen;
}

test("the broker starts on first use, and again with the next start of the daemon", async () => {
  const it = await start();
  await it.client.agents.create({ agent_id: "plain", template_id: "Plain" });
  await it.client.agents.wait("plain", { for: "ready" });
  await expect(it.client.agents.get("svc:bus")).rejects.toMatchObject({ code: "agent_not_found" });
  expect(existsSync(join(it.home, "bus"))).toBe(false);

  // The request waits for the broker.
  await it.client.bus.publish("shared/t", "first");
  const { pid } = await it.client.agents.get("svc:bus");
  const presence = await readKept(it, "openstarry/presence/plain", 1);
  expect(presence).toEqual([expect.objectContaining({ agent_id: "plain", present: true })]);
  expect(readdirSync(join(it.home, "bus"))).toEqual(
    expect.arrayContaining(["broker.sock", "bus.db", "bus.lock", "port.json"]),
  );
  for (const name of ["", ...readdirSync(join(it.home, "bus"))])
    expect([name, statSync(join(it.home, "bus", name)).mode & 0o077]).toEqual([name, 0]);

  expect((await it.cli(["stop"])).code).toBe(0);
  expect(seeProcess(pid as number)).toBeUndefined();
  await it.start();
  await waitFor(async () => (await it.client.agents.get("svc:bus")).state === "running", {
    what: "the broker",
  });
  expect(await readKept(it, "shared/t", 1)).toEqual(["first"]);
  expect((await it.client.daemon.status()).problems).toEqual([]);
});

test("an agent that requires the bus has the broker's address in its environment", async () => {
  const it = await start();
  await it.client.agents.create({ agent_id: "a", template_id: "Needs" });
  const { pid } = await it.client.agents.wait("a", { for: "ready", timeoutMs: 30_000 });
  const env = environOf(pid as number);
  expect(env["OPENSTARRY_BUS_URL"]).toMatch(/^mqtt:\/\/127\.0\.0\.1:\d+$/);
  expect(env["OPENSTARRY_API_URL"]).toMatch(/^http:/);
});

test("messages for a deleted agent do not reach the next one with its id, also when the broker was down", async () => {
  const it = await start();
  await it.client.agents.create({ agent_id: "a", template_id: "Plain" });
  await it.client.bus.publish("agents/a/inbox", "for the first");
  const broker = await it.client.agents.get("svc:bus");
  process.kill(broker.pid as number, "SIGSTOP");
  await it.client.agents.remove("a", { force: true });
  await it.client.agents.create({ agent_id: "a", template_id: "Plain" });
  process.kill(broker.pid as number, "SIGKILL");
  // A request under way when the broker dies is refused.
  const publish = () =>
    it.client.bus.publish("agents/a/inbox", "for the second").then(
      () => true,
      ({ code }: { code: string }) => code !== "bus_unavailable",
    );
  await waitFor(publish, { what: "the broker to run again", timeoutMs: 20_000 });
  expect(await readKept(it, "agents/a/#", 1)).toEqual(["for the second"]);
});
