import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fixtureAgent, printedPid } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { allProcesses, environOf, seeProcess, uidOf } from "../helpers/processes.js";
import { missingProgram } from "../helpers/programs.js";
import { waitFor } from "../helpers/wait-for.js";

const nats = missingProgram("nats-server", "nats-server");
const systemdNotify = missingProgram("systemd-notify", "systemd");
const python = missingProgram("python3", "python3");

/** Restarts go on at once: what is looked at is why they came about. */
const restart = { max_restarts: 1_000, backoff: { min: "0ms", max: "0ms" } };
const params = {
  port: { type: "integer", default: 1 },
  flag: { type: "string", default: "/nonexistent" },
};
const port = "{{params.port}}";
const notifies = (...words: string[]) => ({
  command: "python3",
  args: [...fixtureAgent("notify.py").args, ...words],
  params,
  restart,
});

/** Listens until it gets SIGHUP, and lives on. */
const LISTENER = `
  const server = require("node:net").createServer().listen(Number(process.argv[1]), "127.0.0.1");
  process.on("SIGHUP", () => server.close());
  setInterval(() => {}, 60_000);`;

const templates = [
  {
    template_id: "Nats",
    command: "nats-server",
    args: ["--addr", "127.0.0.1", "--port", port],
    params,
    readiness: { type: "log", pattern: "Server is ready$", stream: "stderr", timeout: "20s" },
    liveness: { type: "tcp", port, interval: "100ms" },
    success_exit_codes: [0, 1],
  },
  {
    template_id: "Listener",
    command: process.execPath,
    args: ["-e", LISTENER, port],
    params,
    readiness: { type: "tcp", port, timeout: "20s", interval: "100ms" },
    liveness: { type: "tcp", port, interval: "100ms" },
    restart,
  },
  {
    template_id: "Web",
    ...fixtureAgent("http-server.mjs", port, "{{params.flag}}"),
    params,
    startup: { timeout: "20s" },
    liveness: { type: "http", port, path: "/healthz", interval: "300ms", misses: 3 },
    restart,
    stop: { grace: "500ms" },
  },
  {
    template_id: "Watchdog",
    ...notifies("READY=1\nSTATUS=up", "pings:{{params.flag}}"),
    readiness: { type: "notify", timeout: "20s" },
    liveness: { type: "notify", interval: "500ms", misses: 2 },
  },
  {
    template_id: "TellsLater",
    ...notifies("wait:{{params.flag}}", "READY=1"),
    readiness: { type: "notify", timeout: "10s" },
  },
  {
    template_id: "Shell",
    command: "sh",
    args: ["-c", 'systemd-notify --ready --status="from a child" && echo told; sleep 100000'],
    params,
    readiness: { type: "notify", timeout: "20s" },
  },
  {
    template_id: "ShellOfNobody",
    command: "sh",
    args: ["-c", "systemd-notify --ready && echo told; sleep 100000"],
    user: "nobody",
    params,
    readiness: { type: "notify", timeout: "20s" },
  },
  {
    template_id: "Asked",
    command: "sh",
    args: ["-c", "echo ready >mark; exec sleep 100000"],
    params,
    user: "nobody",
    env: { WORD: "given" },
    readiness: {
      type: "exec",
      command: "sh",
      args: [
        "-c",
        'test "$WORD" = given && test -e mark && id -u >uid && cat "$OPENSTARRY_PARAMS_FILE" >/dev/null',
      ],
      interval: "100ms",
      timeout: "20s",
    },
    liveness: {
      type: "exec",
      command: "sh",
      args: ["-c", "[ ! -e hang ] || { setsid sleep 100001 & sleep 100002; }"],
      interval: "300ms",
      misses: 2,
    },
    restart,
  },
  ...[
    ["ends", "ends", "1s"],
    ["stays", "stays", "1s"],
    ["gets-on", "stays", "4s"],
  ].map(([name, kind = "", deadline = ""]) => ({
    template_id: `Busy-${name}`,
    ...fixtureAgent("busy.mjs", kind, "{{params.flag}}"),
    params,
    progress: { deadline, grace: "500ms" },
    restart,
    stop: { grace: "500ms" },
  })),
];

let daemon: TestDaemon;
beforeAll(async () => {
  daemon = await startDaemon({ templates });
});
afterAll(() => daemon?.stop());

const agents = () => daemon.client.agents;
const flagOf = (id: string) => join(daemon.project, `${id}.flag`);

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" ? (address?.port ?? 0) : 0));
    });
  });
}

async function ready(agent_id: string, template_id: string, values: Record<string, unknown> = {}) {
  await agents().create({ agent_id, template_id, params: { flag: flagOf(agent_id), ...values } });
  const agent = await agents().wait(agent_id, { for: "ready", timeoutMs: 20_000 });
  expect(agent, JSON.stringify(agent)).toMatchObject({ state: "running" });
  return agent;
}

/** The next run of an agent, which its end led to. */
function nextRun(agentId: string, before: { run_id?: string }) {
  return waitFor(
    async () => {
      const agent = await agents().get(agentId);
      return agent.run_id !== before.run_id && agent.pid !== undefined && agent;
    },
    { what: `another run of ${agentId}`, timeoutMs: 15_000, diagnose: () => agents().get(agentId) },
  );
}

const printed = async (id: string, text: string) =>
  (await agents().logs(id)).items.some((line) => line.text?.includes(text));

const healthy = (id: string) =>
  waitFor(async () => (await agents().get(id)).health === "healthy", { what: `${id} to be healthy` });

describe("log and tcp", () => {
  test.skipIf(nats)(
    "a NATS server is ready when it says so, and lives while it accepts connections",
    async () => {
      const agent = await ready("nats", "Nats", { port: await freePort() });
      await healthy("nats");
      expect(await printed("nats", "Server is ready")).toBe(true);
      expect((await agents().get("nats")).run_id).toBe(agent.run_id);
    },
  );

  test("nobody at its port is unhealthy", async () => {
    const port = await freePort();
    const agent = await ready("listener", "Listener", { port });
    await healthy("listener");
    await agents().signal("listener", "SIGHUP");
    const next = await nextRun("listener", agent);
    const refused = `^no connection to 127.0.0.1 port ${port} \\(ECONNREFUSED\\) \\(3 times in a row, every 100ms\\)`;
    expect(next.last_exit).toMatchObject({
      cause: "unhealthy",
      reason: expect.stringMatching(new RegExp(refused)),
    });
    await agents().remove("listener", { force: true });
  });
});

describe("http", () => {
  test("a server that answers 503 is replaced", async () => {
    const agent = await ready("web", "Web", { port: await freePort() });
    await healthy("web");
    writeFileSync(flagOf("web"), "");
    await waitFor(async () => (await agents().get("web")).last_exit, { what: "its end", timeoutMs: 15_000 });
    const { last_exit } = await agents().get("web");
    expect(last_exit).toMatchObject({
      run_id: agent.run_id,
      cause: "unhealthy",
      success: false,
      reason: expect.stringMatching(
        /^GET http:\/\/127\.0\.0\.1:\d+\/healthz answered 503 \(3 times in a row, every 300ms\)/,
      ),
    });
    // Its start is one that never becomes good, and says why.
    const starting = await waitFor(
      async () => {
        const now = await agents().get("web");
        return now.state === "starting" && now.reason?.includes("503") && now;
      },
      { what: "the next start", timeoutMs: 15_000 },
    );
    expect(starting.health).toBe("unknown");
    await agents().remove("web", { force: true });
  });

  test("one that is stopped with SIGSTOP is replaced, its whole tree", async () => {
    const agent = await ready("frozen", "Web", { port: await freePort() });
    const pids = [await printedPid(daemon, "frozen", "agent"), await printedPid(daemon, "frozen", "child")];
    expect(pids[0]).toBe(agent.pid);
    await agents().signal("frozen", "SIGSTOP");
    const next = await nextRun("frozen", agent);
    expect(next.pid).not.toBe(agent.pid);
    expect(pids.map(seeProcess)).toEqual([undefined, undefined]);
    expect(next.last_exit).toMatchObject({
      cause: "unhealthy",
      reason: expect.stringMatching(/^no answer within 300ms/),
    });
    expect(next.restarts).toBe(1);
    await agents().wait("frozen", { for: "ready", timeoutMs: 20_000 });
  });
});

describe("notify", () => {
  test.skipIf(python)(
    "a watchdog that is not pinged any more ends the run, and the next one lives",
    async () => {
      const agent = await ready("dog", "Watchdog");
      const env = environOf(agent.pid ?? 0);
      expect(env["WATCHDOG_USEC"]).toBe("1000000");
      await healthy("dog");
      await waitFor(async () => (await agents().get("dog")).status === "up", { what: "its status" });
      // One each half a second: three times as long as it would live without them.
      const pings = async () =>
        (await agents().logs("dog")).items.filter(({ text }) => text === "ping: heard").length;
      await waitFor(async () => (await pings()) >= 7, { what: "pings", timeoutMs: 20_000 });
      expect((await agents().get("dog")).run_id).toBe(agent.run_id);
      writeFileSync(flagOf("dog"), "");
      const next = await nextRun("dog", agent);
      expect(next.last_exit).toMatchObject({
        cause: "unhealthy",
        reason: expect.stringMatching(/^no WATCHDOG=1 for 1s \(2 × 500ms\)/),
      });
      expect(existsSync(env["NOTIFY_SOCKET"] ?? "")).toBe(false);
      await agents().remove("dog");
    },
  );

  test.skipIf(systemdNotify)("systemd-notify, a child of the agent, does not wait in vain", async () => {
    await ready("shell", "Shell");
    await waitFor(() => printed("shell", "told"), { what: "systemd-notify to return with 0" });
    await waitFor(async () => (await agents().get("shell")).status === "from a child", {
      what: "its status",
    });
    const path = environOf((await agents().get("shell")).pid ?? 0)["NOTIFY_SOCKET"] ?? "";
    expect(existsSync(path)).toBe(true);
    await agents().remove("shell");
    expect(existsSync(path)).toBe(false);
  });

  test.skipIf(systemdNotify || process.getuid?.() !== 0)(
    "an agent of another user reaches its socket",
    async () => {
      const agent = await ready("of-nobody", "ShellOfNobody");
      expect(uidOf(agent.pid ?? 0)).not.toBe(0);
      await agents().remove("of-nobody");
    },
  );

  test.skipIf(python)("what was said while no daemon lived fails nobody", async () => {
    await agents().create({
      agent_id: "later",
      template_id: "TellsLater",
      params: { flag: flagOf("later") },
    });
    await agents().create({
      agent_id: "in-time",
      template_id: "TellsLater",
      params: { flag: flagOf("in-time") },
    });
    const before = await waitFor(
      async () => {
        const agent = await agents().get("later");
        return agent.state === "starting" && agent;
      },
      { what: "its process" },
    );
    const killed = daemon.pid() ?? 0;
    process.kill(killed, "SIGKILL");
    await waitFor(() => !seeProcess(killed), { what: "the daemon's death" });
    writeFileSync(flagOf("later"), "");
    const log = join(daemon.home, "agents", "later", "logs", `${before.run_id}.stdout.log`);
    await waitFor(() => readFileSync(log, "utf8").includes("READY=1: Connection refused"), {
      what: "the agent to speak to nobody",
    });
    await daemon.start();
    expect(await agents().get("in-time")).toMatchObject({ state: "starting" });
    writeFileSync(flagOf("in-time"), "");
    const heard = await agents().wait("in-time", { for: "ready", timeoutMs: 4_000 });
    expect(heard.state).toBe("running");
    const after = await agents().wait("later", { for: "ready", timeoutMs: 20_000 });
    expect(after).toMatchObject({ state: "running", run_id: before.run_id, pid: before.pid, restarts: 0 });
    for (const id of ["later", "in-time"]) await agents().remove(id, { force: true });
  });
});

describe("exec", () => {
  test.skipIf(process.getuid?.() !== 0)(
    "asks as the agent's user, and leaves nothing that hangs",
    async () => {
      const agent = await ready("asked", "Asked");
      const folder = join(environOf(agent.pid ?? 0)["OPENSTARRY_PARAMS_FILE"] ?? "", "..");
      expect(Number(readFileSync(join(folder, "uid"), "utf8"))).toBe(uidOf(agent.pid ?? 0));
      await healthy("asked");
      const hanging = () => allProcesses().filter(({ command }) => /^sleep 10000[12]$/.test(command));
      expect(hanging()).toEqual([]);
      writeFileSync(join(folder, "hang"), "");
      const next = await nextRun("asked", agent);
      expect(next.last_exit).toMatchObject({
        cause: "unhealthy",
        reason: expect.stringMatching(/^no answer within 300ms \(2 times/),
      });
      await agents().remove("asked", { force: true });
      await waitFor(() => hanging().length === 0, { what: "the commands to be gone", diagnose: hanging });
    },
  );
});

describe("progress", () => {
  /** The steps about one run. */
  async function stepsOf(agentId: string, runId: string | undefined) {
    const { items } = await agents().events(agentId, { limit: 500 });
    return items.flatMap((event) =>
      event.type === "agent.progress" && event.run_id === runId ? [event.data.step] : [],
    );
  }

  test("an agent that is busy and does not get on is nudged, interrupted and restarted", async () => {
    const agent = await ready("busy", "Busy-stays");
    const next = await nextRun("busy", agent);
    expect(await stepsOf("busy", agent.run_id)).toEqual(["nudge", "interrupt", "restart"]);
    expect(next.last_exit).toMatchObject({
      cause: "unhealthy",
      actor: "daemon",
      reason: expect.stringMatching(/^no progress for 2(\.\d)?s/),
    });
    const lines = (await agents().logs("busy", { previous: true })).items.map(({ text }) => text);
    expect(lines.slice(0, 2)).toEqual(["nudged", "interrupted"]);
    await agents().remove("busy", { force: true });
  });

  test("one that ends when it is interrupted is restarted too, whatever it exits with", async () => {
    const agent = await ready("gives-up", "Busy-ends");
    const next = await nextRun("gives-up", agent);
    expect(await stepsOf("gives-up", agent.run_id)).toEqual(["nudge", "interrupt"]);
    expect(next.last_exit).toMatchObject({ kind: "exited", code: 0, cause: "unhealthy", success: false });
    await agents().remove("gives-up", { force: true });
  });

  test("one that gets on is left alone", async () => {
    writeFileSync(flagOf("gets-on"), "");
    const agent = await ready("gets-on", "Busy-gets-on");
    // A step takes 50 ms and more: these take longer than the deadline.
    const isPast = async () => Number(/\d+$/.exec((await agents().get("gets-on")).status ?? "")) > 90;
    await waitFor(isPast, { what: "90 steps", timeoutMs: 60_000 });
    expect((await agents().get("gets-on")).run_id).toBe(agent.run_id);
    expect(await stepsOf("gets-on", agent.run_id)).toEqual([]);
    await agents().remove("gets-on", { force: true });
  });
});
