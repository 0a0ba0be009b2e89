import { appendFileSync, existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { fixtureAgent, printedPid } from "../helpers/agents.js";
import { crash } from "../helpers/crash.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { ask } from "../helpers/http-request.js";
import { environOf, openFilesOf, processesOf, seeProcess } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const never = { policy: "never" };
const Sleeper = { template_id: "Sleeper", ...fixtureAgent("sleeper.sh") };
const agents = [{ agent_id: "master", template_id: "Sleeper" }];

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

async function start(options: Parameters<typeof startDaemon>[0] = {}): Promise<TestDaemon> {
  daemon = await startDaemon({ config: { agents }, templates: [Sleeper], ...options });
  return daemon;
}

const infoOf = ({ home }: TestDaemon) => JSON.parse(readFileSync(join(home, "daemon.json"), "utf8"));

/** What a next daemon must find as it was. */
async function unchanged(it: TestDaemon, agentId: string) {
  const { pid, run_id, started_at } = await it.client.agents.get(agentId);
  return { pid, run_id, started_at, restarts: 0, state: "running" };
}

test("stop ends agents in waves, then the daemon, and leaves no process behind", async () => {
  const order = "{{params.order}}";
  const polite = { ...fixtureAgent("says-goodbye.sh", order), params: { order: { type: "string" } } };
  const it = await start({
    config: { agents: [] },
    templates: [
      { template_id: "Store", ...polite },
      { template_id: "Master", ...polite, requires: ["agent:store"], children: { max: 3 } },
      { template_id: "Worker", ...polite },
    ],
  });
  const params = { order: join(it.project, "order") };
  const add = async (agent_id: string, template_id: string, token?: string) => {
    const body = { agent_id, template_id, params };
    if (token === undefined) await it.client.agents.create(body);
    else await ask({ at: infoOf(it).port, token, method: "POST", path: "/agents", body });
    return printedPid(it, agent_id, "ready");
  };
  await add("store", "Store");
  const master = await add("master", "Master");
  const token = readFileSync(environOf(master)["OPENSTARRY_TOKEN_FILE"] ?? "", "utf8");
  for (const id of ["worker_1", "worker_2"]) await add(id, "Worker", token);
  const before = processesOf(it.home);
  expect(before.length).toBeGreaterThanOrEqual(9);

  const { code, stdout } = await it.cli(["stop"]);
  expect([code, stdout]).toEqual([0, expect.stringContaining("has stopped")]);
  expect(processesOf(it.home)).toEqual([]);
  const ended = readFileSync(params.order, "utf8").trim().split("\n");
  expect([ended.slice(0, 2).sort(), ended.slice(2)]).toEqual([
    ["worker_1", "worker_2"],
    ["master", "store"],
  ]);
  await it.start();
  for (const id of ["store", "master", "worker_1"]) {
    expect(await it.client.agents.wait(id, { for: "ready", timeoutMs: 10_000 })).toMatchObject({
      restarts: 0,
      last_exit: { kind: "exited", code: 0, cause: "daemon_stop", success: true },
    });
  }
});

test("a second daemon exits with 5, names the first one's pid and does not disturb it", async () => {
  const it = await start();
  const before = [infoOf(it), await unchanged(it, "master")];
  const second = await it.cli(["start", "--config", it.config]);
  expect([second.code, second.stdout, second.stderr]).toEqual([
    5,
    "",
    expect.stringContaining(`(pid ${it.pid()})`),
  ]);
  expect([infoOf(it), await unchanged(it, "master")]).toEqual(before);
});

describe("the next daemon", () => {
  test.each([
    ["stop --keep-agents", (it: TestDaemon) => it.cli(["stop", "--keep-agents"])],
    ["kill -9", crash],
  ])("adopts the agents after %s: same process, same run, no restart, no line lost", async (_, end) => {
    const gate = "{{params.gate}}";
    const script =
      'echo "ready $$"; until [ -e "$1" ]; do sleep 0.02; done; echo "alone $$"; exec sleep 100000';
    const talker = {
      command: "sh",
      args: ["-c", script, "talker", gate],
      params: { gate: { type: "string" } },
    };
    const it = await start({ templates: [Sleeper, { template_id: "Talker", ...talker }] });
    const params = { gate: join(it.project, "gate") };
    await it.client.agents.create({ agent_id: "talker", template_id: "Talker", params });
    const pid = await printedPid(it, "talker", "ready");
    const before = await Promise.all(["master", "talker"].map((id) => unchanged(it, id)));
    await end(it);
    expect(seeProcess(pid)?.pid).toBe(pid);
    writeFileSync(params.gate, "");
    await waitFor(() => seeProcess(pid)?.command.startsWith("sleep"), {
      what: "the agent to go on by itself",
    });
    await it.start();
    expect(await Promise.all(["master", "talker"].map((id) => unchanged(it, id)))).toEqual(before);
    const { items } = await it.client.agents.logs("talker");
    expect(items.map(({ text }) => text)).toEqual([`ready ${pid}`, `alone ${pid}`]);
    // And it is the new daemon's to end.
    const final = await it.client.agents.remove("talker");
    expect([seeProcess(pid), final.last_exit?.cause]).toEqual([undefined, "stop_request"]);
  });

  test("knows how runs ended that ended meanwhile, and ends their remaining processes", async () => {
    const ends = (template_id: string, how: string) => ({
      ...{ template_id, ...fixtureAgent("ends-when-told.sh", "{{params.gate}}", how), restart: never },
      params: { gate: { type: "string" } },
    });
    const leaving =
      'setsid sh -c \'echo "child $$"; exec sleep 100000\' & until [ -e "$1" ]; do sleep 0.02; done';
    const it = await start({
      config: { agents: [] },
      templates: [
        ends("Code", "7"),
        ends("Signal", "SEGV"),
        { ...ends("Leaving", ""), command: "sh", args: ["-c", leaving, "sh", "{{params.gate}}"] },
      ],
    });
    const params = { gate: join(it.project, "gate") };
    for (const template_id of ["Code", "Signal", "Leaving"])
      await it.client.agents.create({ agent_id: template_id.toLowerCase(), template_id, params });
    const child = await printedPid(it, "leaving", "child");
    const pids = (await it.client.agents.list()).items.map(({ pid }) => pid as number);
    await crash(it);
    writeFileSync(params.gate, "");
    await waitFor(() => pids.every((pid) => !seeProcess(pid)), { what: "the end of all three" });
    const overAt = new Date().toISOString();
    expect(seeProcess(child)?.pid).toBe(child);
    await it.start();
    const endOf = async (id: string) => (await it.client.agents.wait(id, { for: "ended" })).last_exit;
    expect(await endOf("code")).toMatchObject({ kind: "exited", code: 7, cause: "self", success: false });
    expect(await endOf("signal")).toMatchObject({ kind: "signaled", signal: "SIGSEGV", cause: "self" });
    expect(await endOf("leaving")).toMatchObject({ kind: "exited", code: 0, success: true });
    for (const id of ["code", "signal"]) expect((await endOf(id))?.ended_at.localeCompare(overAt)).toBe(-1);
    expect(seeProcess(child)).toBeUndefined();
  });

  test("carries out what its predecessor was asked for", async () => {
    const stubborn = { ...fixtureAgent("stubborn.sh"), stop: { grace: "2s" } };
    const it = await start({ templates: [Sleeper, { template_id: "Stubborn", ...stubborn }] });
    await it.client.agents.create({ agent_id: "doomed", template_id: "Stubborn" });
    const pids = await Promise.all(
      ["agent", "child", "grandchild"].map((word) => printedPid(it, "doomed", word)),
    );
    await it.client.agents.remove("doomed", { wait: false });
    await crash(it);
    expect(pids.map((pid) => seeProcess(pid)?.pid)).toEqual(pids);
    await it.start();
    const gone = async () =>
      (await it.client.agents.list()).items.every(({ agent_id }) => agent_id !== "doomed");
    await waitFor(gone, { what: "the end of the deletion", timeoutMs: 10_000 });
    expect(pids.map(seeProcess)).toEqual([undefined, undefined, undefined]);
  });

  test("restarts agents that an interrupted stop had begun to end", async () => {
    const stubborn = { ...fixtureAgent("stubborn.sh"), stop: { grace: "1s" }, restart: never };
    const it = await start({ config: { agents: [] }, templates: [{ template_id: "Stubborn", ...stubborn }] });
    const pids: number[] = [];
    for (const agent_id of ["alive", "dead"]) {
      await it.client.agents.create({ agent_id, template_id: "Stubborn" });
      pids.push(await printedPid(it, agent_id, "grandchild"), await printedPid(it, agent_id, "agent"));
    }
    process.kill(it.pid() as number, "SIGTERM");
    const stopping = async () =>
      (await it.client.agents.list()).items.every(({ state }) => state === "stopping");
    await waitFor(stopping, { what: "the stop to have begun" });
    await crash(it);
    process.kill(pids[3] as number, "SIGKILL");
    await it.start();
    for (const agent_id of ["alive", "dead"]) {
      const back = async () => {
        const agent = await it.client.agents.get(agent_id);
        return agent.state === "running" && !pids.includes(agent.pid ?? 0) && agent;
      };
      expect(
        await waitFor(back, { what: "its return", diagnose: () => it.client.agents.why(agent_id) }),
      ).toMatchObject({
        restarts: 0,
        last_exit: { cause: "daemon_stop", signal: "SIGKILL", success: true },
      });
    }
    expect(pids.map(seeProcess)).toEqual([undefined, undefined, undefined, undefined]);
  });

  test("starts in spite of the files that its predecessor left", async () => {
    const it = await start();
    const before = await unchanged(it, "master");
    const { port, ...info } = infoOf(it);
    const leftovers: [string, string][] = [
      ["daemon.json", '{"pid": 1'],
      // Of a process that lives, and is no daemon.
      ["daemon.json", JSON.stringify({ ...info, port, pid: process.pid })],
      ["http-api.json", "\0\0"],
    ];
    for (const [name, content] of leftovers) {
      await crash(it);
      writeFileSync(join(it.home, name), content);
      expect([name, await it.cli(["status"])]).toEqual([
        name,
        expect.objectContaining({ code: 3, stdout: "" }),
      ]);
      expect([name, (await it.start()).stderr]).toEqual([name, ""]);
      expect(await unchanged(it, "master")).toEqual(before);
    }
  });
});

test("SIGTERM stops the daemon in order; its next start has the same port", async () => {
  const it = await start();
  const [pid, { port }] = [it.pid() as number, infoOf(it)];
  process.kill(pid, "SIGTERM");
  await waitFor(() => processesOf(it.home).length === 0, {
    what: "the end of everything",
    timeoutMs: 15_000,
  });
  expect(seeProcess(pid)).toBeUndefined();
  await it.start();
  expect(infoOf(it).port).toBe(port);
  expect(await it.client.agents.get("master")).toMatchObject({
    restarts: 0,
    last_exit: { cause: "daemon_stop" },
  });
  // Somebody else has it meanwhile: no reason not to start.
  await it.cli(["stop"]);
  const stranger = createServer().listen(port, "127.0.0.1");
  await it.start();
  expect(infoOf(it).port).not.toBe(port);
  stranger.close();
});

test.each(["SIGTERM", "SIGINT"] as const)(
  "on_daemon_stop decides what %s means for the agents",
  async (signal) => {
    const it = await start({ config: { agents, on_daemon_stop: "keep" } });
    const before = await unchanged(it, "master");
    process.kill(it.pid() as number, signal);
    await waitFor(() => it.pid() === undefined, { what: "its end" });
    expect(seeProcess(before.pid as number)?.pid).toBe(before.pid);
    await it.start();
    expect(await unchanged(it, "master")).toEqual(before);

    // It holds as it was when the config was last read.
    const written = JSON.parse(readFileSync(it.config, "utf8"));
    writeFileSync(it.config, JSON.stringify({ ...written, on_daemon_stop: "stop" }));
    const reloads = () => readFileSync(join(it.home, "daemon.log"), "utf8").match(/config reloaded/g);
    process.kill(it.pid() as number, "SIGHUP");
    await waitFor(() => reloads()?.length === 1, { what: "the reload" });
    expect(await unchanged(it, "master")).toEqual(before);
    process.kill(it.pid() as number, signal);
    await waitFor(() => processesOf(it.home).length === 0, { what: "the end of all", timeoutMs: 15_000 });
  },
);

test("a background daemon ignores the service manager of its starter, and its log has what Node prints", async () => {
  const it = await start({
    env: { NOTIFY_SOCKET: join("/nowhere", "socket"), WATCHDOG_USEC: "1000000", WATCHDOG_PID: "1" },
  });
  const pid = it.pid() as number;
  expect(Object.keys(environOf(pid)).filter((name) => /NOTIFY|WATCHDOG/.test(name))).toEqual([]);
  const log = join(it.home, "daemon.log");
  const output = () => openFilesOf(pid).slice(1, 3);
  expect(output()).toEqual([log, log]);
  expect(readFileSync(log, "utf8")).not.toContain("service manager");

  appendFileSync(log, `${"x".repeat(10 * 2 ** 20)}\n`);
  process.kill(pid, "SIGHUP");
  const archived = () => existsSync(`${log}.1`) && statSync(log).size > 0 && statSync(log).size < 2 ** 20;
  await waitFor(archived, { what: "the log to be archived" });
  expect(output()).toEqual([log, log]);
  const [record, ...more] = readFileSync(log, "utf8").trim().split("\n");
  expect([JSON.parse(record ?? "").msg, more]).toEqual(["config reloaded", []]);
});
