import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { lockHolder } from "../../bin/daemon/lock.js";
import { identify } from "../../bin/daemon/process-identity.js";
import { COMMAND, runCli, startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { knock } from "../helpers/knock.js";
import { waitFor } from "../helpers/wait-for.js";

const Sleeper = { template_id: "Sleeper", command: "sleep", args: ["1000"] };
const config = { agents: [{ agent_id: "master", template_id: "Sleeper" }] };

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

async function start(options: Parameters<typeof startDaemon>[0] = {}): Promise<TestDaemon> {
  daemon = await startDaemon({ config, templates: [Sleeper], ...options });
  return daemon;
}

const infoOf = ({ home }: TestDaemon) => JSON.parse(readFileSync(join(home, "daemon.json"), "utf8"));

function listen(server: Server, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => resolve(true));
  });
}

describe("restart", () => {
  test("replaces the process; agents, addresses and concurrent requests are not affected", async () => {
    const it = await start();
    const before = { info: infoOf(it), agent: await it.client.agents.get("master") };
    const knockers = [knock({ port: before.info.port }), knock({ socketPath: before.info.socket })];
    await waitFor(() => knockers.every(({ outcomes }) => outcomes.length > 5), { what: "answers" });
    for (let round = 0; round < 3; round++) {
      const pid = it.pid();
      const { code, stdout } = await it.cli(["restart"]);
      expect([code, stdout]).toEqual([0, expect.stringContaining(`pid ${pid} is now pid ${it.pid()}`)]);
      expect(it.pid()).not.toBe(pid);
      expect(identify(pid as number)).toBeUndefined();
    }
    await Promise.all(knockers.map((knocker) => knocker.stop()));
    for (const { outcomes } of knockers) {
      expect(outcomes.filter((outcome) => outcome !== "200")).toEqual([]);
    }
    const { port, url, socket, config: path } = before.info;
    expect(infoOf(it)).toMatchObject({ port, url, socket, config: path });
    const { pid, run_id } = before.agent;
    expect(await it.client.agents.get("master")).toMatchObject({ pid, run_id, restarts: 0 });
  });

  test("clients that wait for an agent or follow its output survive it", async () => {
    const it = await start();
    const gate = join(it.project, "gate");
    const script = `echo first; while [ ! -e "${gate}" ]; do sleep 0.05; done; echo last; exit 7`;
    await it.cli(["run", "--id", "talker", "--", "sh", "-c", script]);
    const waited = it.cli(["wait", "talker"]);
    const followed = it.cli(["logs", "talker", "-f"]);
    expect((await it.cli(["restart"])).code).toBe(0);
    writeFileSync(gate, "");
    expect((await waited).code).toBe(7);
    await it.cli(["agent", "rm", "talker"]);
    expect(await followed).toEqual({ code: 0, stdout: "first\nlast\n", stderr: "" });
  });

  test("an invalid config changes nothing, for restart and for reload", async () => {
    const it = await start();
    const pid = it.pid();
    const good = readFileSync(it.config);
    writeFileSync(it.config, '{ "agents": 7 }');
    for (const command of ["restart", "reload"]) {
      const { code, stderr } = await it.cli([command]);
      expect([command, code, stderr]).toEqual([command, 2, expect.stringMatching(/^error: .*agents/)]);
    }
    expect([it.pid(), (await it.cli(["list"])).code]).toEqual([pid, 0]);
    writeFileSync(it.config, good);
    expect((await it.cli(["restart"])).code).toBe(0);
  });

  test("if the successor cannot serve, the old daemon keeps running and reports why", async () => {
    const occupied = createServer();
    await new Promise<void>((resolve) => occupied.listen(0, "127.0.0.1", resolve));
    const { port } = occupied.address() as { port: number };
    const it = await start();
    await it.cli(["stop", "--keep-agents"]);
    // Without --port, which would stand above the config.
    expect(await it.cli(["start", "--config", it.config])).toMatchObject({ code: 0 });
    const before = { pid: it.pid(), url: infoOf(it).url, agent: await it.client.agents.get("master") };

    const written = JSON.parse(readFileSync(it.config, "utf8"));
    writeFileSync(it.config, JSON.stringify({ ...written, plugins: [["http-api", { port }]] }));
    const { code, stderr } = await it.cli(["restart"]);
    expect([code, stderr]).toEqual([1, expect.stringMatching(new RegExp(`keeps running: .*port ${port} `))]);
    expect([it.pid(), infoOf(it).url]).toEqual([before.pid, before.url]);
    const { pid, run_id } = before.agent;
    expect(await it.client.agents.get("master")).toMatchObject({ pid, run_id, restarts: 0 });

    await new Promise((resolve) => occupied.close(resolve));
    expect((await it.cli(["restart"])).code).toBe(0);
    expect(infoOf(it).port).toBe(port);
    expect(await it.client.agents.get("master")).toMatchObject({ pid, run_id, restarts: 0 });
  });

  test("a stop request during a restart is not lost", async () => {
    const it = await start();
    const { pid } = await it.client.agents.get("master");
    const old = it.pid() as number;
    await it.client.daemon.restart();
    process.kill(old, "SIGTERM");
    await waitFor(() => it.pid() === undefined && !existsSync(join(it.home, "daemon.json")), {
      what: "the end of both",
      timeoutMs: 20_000,
    });
    expect(identify(pid as number)).toBeUndefined();
  });

  test("the stop command stops the daemon that a restart leaves", async () => {
    const it = await start();
    const { pid } = await it.client.agents.get("master");
    await it.client.daemon.restart();
    expect(await it.cli(["stop", "--keep-agents"])).toMatchObject({ code: 0 });
    expect([it.pid(), existsSync(join(it.home, "daemon.json"))]).toEqual([undefined, false]);
    expect(identify(pid as number)).toBeDefined();
  });

  test("reload applies what it can and lists what needs a restart", async () => {
    const it = await start();
    const written = JSON.parse(readFileSync(it.config, "utf8"));
    const agents = [...config.agents, { agent_id: "second", template_id: "Sleeper" }];
    const plugins = [["journal-sqlite", { max_events: 5_000 }]];
    writeFileSync(it.config, JSON.stringify({ ...written, agents, plugins }));
    const { code, stdout } = await it.cli(["reload", "--json"]);
    expect(code).toBe(0);
    expect(JSON.parse(stdout).needs_restart).toEqual(["the options of plugin journal-sqlite changed"]);
    expect(await it.client.agents.wait("second", { for: "ready" })).toMatchObject({ state: "running" });
    expect((await it.cli(["reload"])).stdout).toContain(
      "needs restart: the options of plugin journal-sqlite",
    );
    expect((await it.cli(["restart"])).code).toBe(0);
    expect((await it.cli(["reload"])).stdout).toBe("Nothing changed.\n");
  });
});

describe("with less of an API", () => {
  test("commands use the port alone, and never another program that took it", async () => {
    const it = await start({ config: { ...config, plugins: [["http-api", { socket: false }]] } });
    expect(infoOf(it).socket).toBeUndefined();
    expect(await it.cli(["list"])).toMatchObject({ code: 0, stdout: expect.stringContaining("master") });
    const { pid, port } = infoOf(it);
    process.kill(pid, "SIGKILL");
    await waitFor(() => it.pid() === undefined, { what: "the lock to be free" });
    let connections = 0;
    const stranger = createServer((socket) => {
      connections++;
      socket.destroy();
    });
    // The kernel of the machine frees lock and port one after the other.
    await waitFor(() => listen(stranger, port), { what: "the port to be free" });
    for (const command of [["list"], ["status"], ["stop"]]) await it.cli(command);
    expect((await it.cli(["list"])).code).toBe(3);
    await new Promise((resolve) => stranger.close(resolve));
    expect(connections).toBe(0);
  });

  test("start, status and stop work without an API", async () => {
    const dir = mkdtempSync(join(tmpdir(), "openstarry-noapi-"));
    const home = join(dir, "home");
    const file = join(dir, "openstarry.config.json");
    writeFileSync(file, JSON.stringify({ plugins: [["http-api", false]] }));
    const cli = (...args: string[]) => runCli(["--home", home, ...args], { cwd: dir });
    try {
      expect(await cli("start")).toMatchObject({
        code: 0,
        stdout: expect.not.stringMatching(/^ *API /m),
      });
      const pid = lockHolder(home) as number;
      const status = await cli("status", "--json");
      expect([status.code, JSON.parse(status.stdout)]).toMatchObject([0, { running: true, pid }]);
      const kept = await cli("stop", "--keep-agents");
      expect([kept.code, kept.stderr]).toEqual([
        1,
        expect.stringContaining("cannot keep the agents: the API of the daemon"),
      ]);
      expect(await cli("stop")).toMatchObject({ code: 0 });
      expect(identify(pid)).toBeUndefined();
    } finally {
      await cli("stop");
      rmSync(dir, { recursive: true, force: true });
    }
  });
});

test("stop names the agents it waits for; a second signal kills them", async () => {
  const stubborn = {
    template_id: "Stubborn",
    command: "bash",
    args: ["-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"],
    stop: { grace: "60s" },
  };
  const it = await start({ config: {}, templates: [stubborn] });
  await it.cli(["run", "Stubborn", "--id", "stubborn"]);
  await waitFor(async () => (await it.client.agents.logs("stubborn")).items.length > 0, { what: "its trap" });
  const pid = it.pid() as number;
  const agent = await it.client.agents.get("stubborn");
  const stopping = spawn(process.execPath, [COMMAND, "stop", "--home", it.home], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let stderr = "";
  stopping.stderr.setEncoding("utf8").on("data", (text) => {
    stderr += text;
  });
  const ended = once(stopping, "exit");
  await waitFor(() => /waiting for stubborn \(stopping, up \d+s\)/.test(stderr), {
    what: "the blocker's name",
    timeoutMs: 10_000,
    diagnose: () => stderr,
  });
  process.kill(pid, "SIGTERM");
  expect(await ended).toEqual([0, null]);
  expect([identify(pid), identify(agent.pid as number)]).toEqual([undefined, undefined]);
});
