import { afterEach, expect, test } from "vitest";
import { fixtureAgent } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { processesOfAgent, seeProcess } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const Plain = { template_id: "Plain_v1", ...fixtureAgent("sleeper.sh") };

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

async function start(options: Parameters<typeof startDaemon>[0]): Promise<TestDaemon> {
  daemon = await startDaemon(options);
  return daemon;
}

/** In the order of the journal: who came to have a process. */
async function startsSince({ client }: TestDaemon, agentIds: string[], after: number): Promise<string[]> {
  const pages = await Promise.all(agentIds.map((id) => client.agents.events(id, { after })));
  return pages
    .flatMap(({ items }) => items)
    .filter(
      (event) =>
        event.type === "agent.state" &&
        event.data.from === "pending" &&
        /^(starting|running)$/.test(event.data.to),
    )
    .sort((a, b) => a.id - b.id)
    .map(({ agent_id }) => agent_id ?? "");
}

test("the master is the first agent that is started, after only what it requires", async () => {
  const requiring = (template_id: string, ...agents: string[]) => ({
    ...Plain,
    template_id,
    requires: agents.map((id) => `agent:${id}`),
  });
  const agents = [
    { agent_id: "master", template_id: "Master_v1" },
    { agent_id: "report", template_id: "Plain_v1" },
    { agent_id: "indexer", template_id: "Indexer_v1" },
    { agent_id: "store", template_id: "Plain_v1" },
    { agent_id: "crawler", template_id: "Plain_v1" },
  ];
  const it = await start({
    config: { agents },
    templates: [Plain, requiring("Master_v1", "indexer"), requiring("Indexer_v1", "store")],
  });
  const check = async (after: number, others: string[]) => {
    const ids = ["master", "indexer", "store", ...others];
    await waitFor(async () => (await it.client.daemon.status()).agents.running === 3 + others.length, {
      what: "all of them",
      diagnose: () => it.client.agents.list(),
    });
    const order = await startsSince(it, ids, after);
    expect(order.slice(0, 3)).toEqual(["store", "indexer", "master"]);
    expect(order.slice(3).sort()).toEqual(others);
    const { items } = await it.client.agents.list();
    const at = (id: string) => items.find(({ agent_id }) => agent_id === id)?.started_at ?? "";
    for (const other of others) expect([other, at(other) >= at("master")]).toEqual([other, true]);
  };
  await check(0, ["crawler", "report"]);
  // The next boot too, where there are records, and agents that the config does not name.
  await it.client.agents.create({ agent_id: "guest", template_id: "Plain_v1" });
  const { last_event_id = 0 } = await it.client.daemon.status();
  await it.cli(["stop"]);
  const { stdout } = await it.start();
  for (const id of ["master", "crawler", "guest"]) expect(stdout).toMatch(new RegExp(`${id} +running +pid`));
  await check(last_event_id, ["crawler", "guest", "report"]);
});

test("a master that waits for an agent that has failed holds nobody up", async () => {
  const it = await start({
    config: {
      agents: [
        { agent_id: "master", template_id: "Master_v1" },
        { agent_id: "indexer", template_id: "Crashing_v1" },
        { agent_id: "other", template_id: "Plain_v1" },
      ],
    },
    templates: [
      Plain,
      { ...Plain, template_id: "Master_v1", requires: ["agent:indexer"] },
      {
        template_id: "Crashing_v1",
        ...fixtureAgent("crashes.sh"),
        readiness: { type: "heartbeat" },
        restart: { policy: "never" },
      },
    ],
  });
  await it.client.agents.wait("other", { for: "ready", timeoutMs: 15_000 });
  expect(await it.client.agents.get("master")).toMatchObject({
    state: "pending",
    reason: "waits for agent:indexer, which is exited",
  });
});

test("killed with kill -9 it is back with a new pid and a counted restart", async () => {
  const restart = { policy: "always", max_restarts: 5, backoff: { min: "1ms", max: "1ms" } };
  const it = await start({
    config: { agents: [{ agent_id: "master", template_id: "Master_v1" }] },
    templates: [{ ...Plain, template_id: "Master_v1", restart }],
  });
  const before = await it.client.agents.get("master");
  process.kill(before.pid as number, "SIGKILL");
  const after = await waitFor(
    async () => {
      const agent = await it.client.agents.get("master");
      return agent.state === "running" && agent.restarts > 0 && agent;
    },
    { what: "its return", diagnose: () => it.client.agents.why("master") },
  );
  expect(after).toMatchObject({
    restarts: 1,
    last_exit: {
      ...{ kind: "signaled", signal: "SIGKILL", pid: before.pid, run_id: before.run_id },
      ...{ cause: "self", success: false },
    },
  });
  expect([after.pid === before.pid, after.run_id === before.run_id]).toEqual([false, false]);
  expect(seeProcess(before.pid as number)).toBeUndefined();
  expect(processesOfAgent(it.home, "master").map(({ pid }) => pid)).toContain(after.pid);
});

test("crash-looping it ends failed, and the reason says so", async () => {
  const restart = { policy: "always", max_restarts: 3, period: "60s", backoff: { min: "1ms", max: "2ms" } };
  const it = await start({
    config: { agents: [{ agent_id: "master", template_id: "Master_v1" }] },
    templates: [{ template_id: "Master_v1", ...fixtureAgent("crashes.sh"), restart }],
  });
  const ended = await it.client.agents.wait("master", { for: "ended", timeoutMs: 20_000 });
  expect(ended).toMatchObject({
    state: "failed",
    restarts: 3,
    reason: expect.stringMatching(/code 3.*crash loop: 4 restarts would be within 1m, at most 3 allowed/),
    last_exit: { kind: "exited", code: 3, cause: "self", success: false },
  });
  const why = await it.cli(["why", "master"]);
  expect(why.stdout).toMatch(/^master has failed\n[\s\S]*crash loop[\s\S]*no model to talk to/);
  expect(processesOfAgent(it.home, "master")).toEqual([]);
  // Given up on is given up on, until somebody asks: also for the next daemon.
  await it.cli(["stop"]);
  await it.start();
  expect(await it.client.agents.get("master")).toMatchObject({ state: "failed", restarts: 3 });
});

test("an agent of the config that was deleted returns at the next start; one of the API does not", async () => {
  const agents = [{ agent_id: "master", template_id: "Plain_v1" }];
  const it = await start({ config: { agents }, templates: [Plain] });
  await it.client.agents.create({ agent_id: "guest", template_id: "Plain_v1" });
  const [first] = (await it.client.agents.list()).items;
  for (const id of ["master", "guest"]) await it.client.agents.remove(id);
  expect((await it.client.agents.list()).items).toEqual([]);
  await it.cli(["stop"]);
  await it.start();
  const { items } = await it.client.agents.list();
  expect(items).toMatchObject([{ agent_id: "master", state: "running", restarts: 0 }]);
  expect(items[0]?.created_at).not.toBe(first?.created_at);
});

test("start --fresh brings back the config's agents only; the others keep their records", async () => {
  const agents = [{ agent_id: "master", template_id: "Plain_v1" }];
  const it = await start({ config: { agents }, templates: [Plain] });
  await it.client.agents.create({ agent_id: "guest", template_id: "Plain_v1" });
  await it.cli(["stop"]);
  const { stdout } = await it.start(["--fresh"]);
  expect(stdout).toMatch(/master +running/);
  const { items } = await it.client.agents.list();
  expect(items).toMatchObject([
    { agent_id: "master", state: "running", restarts: 0 },
    { agent_id: "guest", state: "stopped", desired: "stopped", reason: expect.stringContaining("--fresh") },
  ]);
  // Also after a restart without --fresh, which is no wish of its own.
  await it.cli(["stop"]);
  await it.start();
  expect((await it.client.agents.get("guest")).state).toBe("stopped");
});

test("start --fresh ends what an earlier daemon left running and the config does not name", async () => {
  const agents = [{ agent_id: "master", template_id: "Plain_v1" }];
  const it = await start({ config: { agents }, templates: [Plain] });
  const guest = await it.client.agents.create({ agent_id: "guest", template_id: "Plain_v1" });
  const master = await it.client.agents.get("master");
  await it.cli(["stop", "--keep-agents"]);
  await it.start(["--fresh"]);
  expect(await it.client.agents.wait("guest", { for: "ended", timeoutMs: 15_000 })).toMatchObject({
    state: "stopped",
    last_exit: { cause: "stop_request", run_id: guest.run_id },
  });
  expect(seeProcess(guest.pid as number)).toBeUndefined();
  expect(await it.client.agents.get("master")).toMatchObject({ pid: master.pid, run_id: master.run_id });
});
