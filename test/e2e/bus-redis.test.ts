import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { fixtureAgent } from "../helpers/agents.js";
import { agentWhen, crash, killAgent } from "../helpers/crash.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { allProcesses, environOf, processesOf } from "../helpers/processes.js";
import { noRedis, startRedis } from "../helpers/redis-server.js";
import { waitFor } from "../helpers/wait-for.js";

const Needs = { template_id: "Needs", ...fixtureAgent("sleeper.sh"), requires: ["bus"] };
const ID = "svc:bus-redis";

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

async function start(options: Record<string, unknown>): Promise<TestDaemon> {
  daemon = await startDaemon({ config: { plugins: [["bus-redis", options]] }, templates: [Needs] });
  return daemon;
}

const running = (it: TestDaemon) => agentWhen(it, ID, ({ state }) => state === "running");
const usable = ({ client }: TestDaemon) =>
  waitFor(() => client.bus.publish("probe", 1), { what: "the bus", timeoutMs: 15_000 });
const serversOf = ({ home }: TestDaemon) =>
  allProcesses().filter(
    ({ command }) => command.includes(join(home, "bus-redis", "redis.conf")) && !command.includes("shim"),
  );

/** Reads the first kept messages of a topic. */
async function read({ client }: TestDaemon, topic: string, count: number): Promise<unknown[]> {
  const seen: unknown[] = [];
  const signal = AbortSignal.timeout(20_000);
  for await (const { payload } of client.bus.subscribe(topic, { after: "0", signal })) {
    seen.push(payload);
    if (seen.length === count) break;
  }
  return seen;
}

describe.skipIf(noRedis)("the managed Redis server of bus-redis", () => {
  test("the server starts for an agent that requires the bus, and its password appears nowhere", async () => {
    const it = await start({ managed: true });
    await expect(it.client.agents.get(ID)).rejects.toMatchObject({ code: "agent_not_found" });
    await it.client.agents.create({ agent_id: "worker", template_id: "Needs" });
    const worker = await it.client.agents.wait("worker", { for: "ready", timeoutMs: 15_000 });
    expect(environOf(worker.pid as number)["OPENSTARRY_BUS_URL"]).toMatch(/^http.*bus$/);
    await running(it);
    for (const payload of [{ a: 1 }, "two"]) await it.client.bus.publish("agents/worker/inbox", payload);
    expect(await read(it, "agents/worker/inbox", 2)).toEqual([{ a: 1 }, "two"]);

    const password = readFileSync(join(it.home, "bus-redis", "password"), "utf8").trim();
    const visible = [
      ...allProcesses().map((process) => process.command + JSON.stringify(environOf(process.pid))),
      readFileSync(join(it.home, "daemon.log"), "utf8"),
      JSON.stringify(await it.client.agents.get(ID)),
      (await it.cli(["logs", ID])).stdout,
      readFileSync(join(it.home, "journal.db"), "latin1"),
    ];
    expect(visible.filter((text) => text.includes(password))).toEqual([]);
    // Deleting the agent drops its messages.
    await it.client.agents.stop("worker");
    await it.client.agents.remove("worker");
    const topics = async () => {
      const { position } = await it.client.bus.publish("end", "");
      const seen: string[] = [];
      const signal = AbortSignal.timeout(20_000);
      for await (const message of it.client.bus.subscribe("#", { after: "0", signal })) {
        if (message.position === position) break;
        seen.push(message.topic);
      }
      return seen;
    };
    await waitFor(async () => !(await topics()).includes("agents/worker/inbox"), {
      what: "the messages to be dropped",
    });
  });

  test("the server is adopted after kill -9 of the daemon, with its messages and groups", async () => {
    const it = await start({ managed: true, eager: true });
    await usable(it);
    const before = await running(it);
    const group = { group: "g", after: "0", ackWaitMs: 1_000, signal: AbortSignal.timeout(20_000) };
    for (const number of [1, 2, 3]) await it.client.bus.publish("work", number);
    for await (const { ack } of it.client.bus.consume("work", group)) {
      await ack();
      break;
    }
    await crash(it);
    await it.start();
    expect(await running(it)).toMatchObject({ pid: before.pid, run_id: before.run_id, restarts: 0 });
    expect(serversOf(it)).toHaveLength(1);
    expect(await read(it, "work", 3)).toEqual([1, 2, 3]);
    const rest: unknown[] = [];
    for await (const { ack, message } of it.client.bus.consume("work", group)) {
      await ack();
      rest.push(message.payload);
      if (rest.length === 2) break;
    }
    expect(rest.sort()).toEqual([2, 3]);
  });

  test("the daemon restarts a server killed under load, and no acknowledged message is lost", async () => {
    const it = await start({ managed: true, eager: true });
    await usable(it);
    const { pid } = it;
    const daemonPid = pid();
    const acknowledged: number[] = [];
    let isOver = false;
    const publishing = (async () => {
      for (let number = 0; !isOver; number++) {
        const published = it.client.bus.publish("traffic", number);
        await published.then(
          () => acknowledged.push(number),
          (error: { code?: unknown }) => expect(error.code).toBe("bus_unavailable"),
        );
      }
    })();
    for (let round = 0; round < 3; round++) {
      const before = acknowledged.length;
      await waitFor(() => acknowledged.length > before + 50, { what: "traffic", timeoutMs: 20_000 });
      const server = await running(it);
      await killAgent(server);
      await agentWhen(it, ID, (agent) => agent.state === "running" && agent.run_id !== server.run_id);
    }
    const before = acknowledged.length;
    await waitFor(() => acknowledged.length > before + 50, { what: "traffic", timeoutMs: 20_000 });
    isOver = true;
    await publishing;
    expect(pid()).toBe(daemonPid);
    expect((await it.cli(["status"])).stdout).not.toContain("problem");
    const log = readFileSync(join(it.home, "daemon.log"), "utf8");
    expect(log).toContain("plugin bus-redis: svc:bus-redis: connection lost");
    const seen = new Set<unknown>();
    const signal = AbortSignal.timeout(20_000);
    for await (const { payload } of it.client.bus.subscribe("traffic", { after: "0", signal })) {
      seen.add(payload);
      if (payload === acknowledged.at(-1)) break;
    }
    expect(acknowledged.filter((number) => !seen.has(number))).toEqual([]);
  }, 90_000);

  test("the server stops with the daemon, and has its messages at the next start", async () => {
    const it = await start({ managed: true, eager: true });
    await usable(it);
    await it.client.bus.publish("t", "kept");
    expect((await it.cli(["stop"])).code).toBe(0);
    expect(processesOf(it.home)).toEqual([]);
    await it.start();
    await usable(it);
    expect(await read(it, "t", 1)).toEqual(["kept"]);
  });
});

test.skipIf(noRedis)(
  "bus-redis uses an external server by its URL, and only keys with its prefix",
  async () => {
    const server = await startRedis();
    try {
      await server.client.set("foreign", "1");
      const it = await start({ url: server.url, prefix: "mine" });
      await it.client.bus.publish("t", 1);
      const names = await server.client.keys("*");
      expect(names.filter((name) => !name.startsWith("mine:"))).toEqual(["foreign"]);
      expect(names).toContain("mine:bus:messages");
    } finally {
      await server.stop();
    }
  },
);
