import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectNats } from "@nats-io/transport-node";
import { afterEach, describe, expect, it } from "vitest";
import { fixtureAgent } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { missingNatsServer, type NatsServer, startNatsServer } from "../helpers/nats-server.js";
import { operatorOf } from "../helpers/operator.js";
import { environOf } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const missing = missingNatsServer();
const ID = "svc:nats";
const needsBus = { template_id: "Needs", ...fixtureAgent("sleeper.sh"), requires: ["bus"] };

let daemon: TestDaemon | undefined;
let server: NatsServer | undefined;
afterEach(async () => {
  await daemon?.stop();
  await server?.stop();
  daemon = undefined;
  server = undefined;
});

async function start(options: Record<string, unknown>): Promise<TestDaemon> {
  daemon = await startDaemon({ config: { plugins: [["bus-nats", options]] }, templates: [needsBus] });
  return daemon;
}

const ready = (it: TestDaemon, id = ID) => it.client.agents.wait(id, { for: "ready", timeoutMs: 20_000 });

/** The command line of a process. */
const argumentsOf = (pid: number) => readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").filter(Boolean);

/** Publishes as soon as the bus can be used. */
const publish = (it: TestDaemon, topic: string, payload: unknown) =>
  waitFor(() => it.client.bus.publish(topic, payload), { what: "the bus", timeoutMs: 20_000 });

async function first(it: TestDaemon, count: number, topic: string, after = "0") {
  const signal = AbortSignal.timeout(20_000);
  const seen: { payload: unknown; position?: string }[] = [];
  for await (const { payload, position } of it.client.bus.subscribe(topic, { after, signal })) {
    seen.push({ payload, ...(position === undefined ? {} : { position }) });
    if (seen.length === count) break;
  }
  return seen;
}

describe.skipIf(missing !== undefined)("a managed NATS server", () => {
  it("the server is started on first use, and adopted with its messages after kill -9 of the daemon", async () => {
    const it = await start({ managed: true });
    await expect(it.client.agents.get(ID)).rejects.toMatchObject({ code: "agent_not_found" });
    await it.client.agents.create({ agent_id: "a", template_id: "Needs" });
    expect(await ready(it, "a")).toMatchObject({ state: "running" });
    const { pid } = await ready(it);
    await publish(it, "shared/t", 1);
    const member = () => {
      const how = { group: "g", after: "0", ackWaitMs: 1_000, signal: AbortSignal.timeout(20_000) };
      return it.client.bus.consume("shared/t", how);
    };
    const unacknowledged = await member().next();
    expect(unacknowledged.value).toMatchObject({ attempt: 1, message: { payload: 1 } });
    process.kill(it.pid() as number, "SIGKILL");
    await waitFor(() => it.pid() === undefined, { what: "the lock to be free" });
    await it.start();
    expect(await ready(it)).toMatchObject({ pid, restarts: 0 });
    await publish(it, "shared/t", 2);
    expect((await first(it, 2, "shared/t")).map(({ payload }) => payload)).toEqual([1, 2]);
    const seen: unknown[] = [];
    for await (const { message, attempt, ack } of member()) {
      seen.push([message.payload, attempt]);
      await ack();
      if (seen.length === 2) break;
    }
    expect(seen).toEqual(
      expect.arrayContaining([
        [1, 2],
        [2, 1],
      ]),
    );
  });

  it("messages, groups and the server's address survive a stop of the daemon", async () => {
    const it = await start({ managed: true, eager: true });
    const addressOf = async () => argumentsOf((await ready(it)).pid as number).slice(-4);
    const address = await addressOf();
    await publish(it, "shared/t", 1);
    expect((await it.cli(["stop"])).code).toBe(0);
    await waitFor(() => it.pid() === undefined, { what: "the daemon's end" });
    await it.start();
    expect(await addressOf()).toEqual(address);
    const { last_exit } = await it.client.agents.get(ID);
    expect(last_exit).toMatchObject({ success: true, cause: "daemon_stop" });
    await publish(it, "shared/t", 2);
    expect((await first(it, 2, "shared/t")).map(({ payload }) => payload)).toEqual([1, 2]);
  });

  it("the server accepts only clients with its key, which appears nowhere, and listens on loopback only", async () => {
    const it = await start({ managed: true, eager: true });
    const { pid } = await ready(it);
    await publish(it, "shared/t", "secret");
    const words = argumentsOf(pid as number);
    const port = words[words.indexOf("--port") + 1];
    expect(words[words.indexOf("--addr") + 1]).toBe("127.0.0.1");
    for (const given of [{}, { user: "openstarry", pass: "x" }, { token: "x" }]) {
      const attempt = connectNats({ servers: `127.0.0.1:${port}`, reconnect: false, ...given });
      await expect(attempt).rejects.toThrow(/authorization/i);
    }
    const folder = join(it.home, "nats");
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    for (const name of ["key", "nats-server.conf"])
      expect(statSync(join(folder, name)).mode & 0o777).toBe(0o600);
    const key = readFileSync(join(folder, "key"), "utf8").trim();
    expect(key).toMatch(/^SU[A-Z2-7]{56}$/);
    const shown = [words.join(" "), JSON.stringify(environOf(pid as number))];
    for (const args of [["logs", ID], ["why", ID], ["plugins"], ["status"]])
      shown.push((await it.cli(args)).stdout);
    shown.push(readFileSync(join(it.home, "daemon.log"), "utf8"));
    shown.push(readFileSync(join(folder, "nats-server.conf"), "utf8"));
    for (const text of shown) expect(text).not.toContain(key.slice(2));
  });

  it("a missing nats-server fails the daemon's start with a hint to install it", async () => {
    const config = { plugins: [["bus-nats", { managed: true, program: "/nowhere/nats-server" }]] };
    await expect(startDaemon({ config })).rejects.toThrow(/nats-server.*apt install nats-server/s);
  });

  it("a folder that is a symbolic link or cannot store the port fails the daemon's start", async () => {
    const config = { plugins: [["bus-nats", { managed: true }]] };
    const folder = mkdtempSync(join(tmpdir(), "openstarry-nats-home-"));
    try {
      const elsewhere = join(folder, "elsewhere");
      const home = join(folder, "home");
      mkdirSync(elsewhere);
      mkdirSync(home, { mode: 0o700 });
      symlinkSync(elsewhere, join(home, "nats"));
      await expect(startDaemon({ config, home })).rejects.toThrow(/nats is no folder/);
      expect(readdirSync(elsewhere)).toEqual([]);
      rmSync(join(home, "nats"));
      mkdirSync(join(home, "nats", "port.json"), { recursive: true, mode: 0o700 });
      await expect(startDaemon({ config, home })).rejects.toThrow(/cannot store the port of svc:nats/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe.skipIf(missing !== undefined)("an external NATS server", () => {
  const PASSWORD = "hunter2-hunter2";
  const problemOf = async (it: TestDaemon) => {
    const { items } = await it.client.plugins();
    return items.find(({ name }) => name === "bus-nats")?.problem;
  };

  it("a server that is down at the start is used when it is up, and its password appears nowhere", async () => {
    server = await startNatsServer({ config: `authorization { user: u, password: "${PASSWORD}" }` });
    await server.kill();
    const it = await start({ url: `nats://u:${PASSWORD}@127.0.0.1:${server.port}` });
    expect(await problemOf(it)).toMatch(/127\.0\.0\.1:\d+: .*(refused|ECONNREFUSED)/i);
    await expect(it.client.bus.publish("shared/t", 1)).rejects.toMatchObject({ code: "bus_unavailable" });
    const { state } = await it.client.agents.create({ agent_id: "a", template_id: "Needs" });
    expect(state).toBe("pending");
    await server.start();
    expect(await ready(it, "a")).toMatchObject({ state: "running" });
    await publish(it, "shared/t", 1);
    expect(await problemOf(it)).toBeUndefined();
    const shown: string[] = [];
    for (const args of [["plugins"], ["status"], ["why", "a"], ["--json", "plugins"]])
      shown.push((await it.cli(args)).stdout);
    const { text } = await operatorOf(it.home).get("/infrastructure");
    for (const one of [...shown, text, readFileSync(join(it.home, "daemon.log"), "utf8")])
      expect(one).not.toContain("hunter2");
  });

  it("rejected credentials and missing JetStream are reported in plain words", async () => {
    server = await startNatsServer({
      config: `authorization { user: u, password: "${PASSWORD}" }`,
      jetstream: false,
    });
    const it = await start({ url: `nats://u:wrong@127.0.0.1:${server.port}` });
    expect(await problemOf(it)).toContain("the server rejects these credentials");
    await daemon?.stop();
    const other = await start({ url: `nats://u:${PASSWORD}@127.0.0.1:${server.port}` });
    expect(await problemOf(other)).toContain("JetStream is not enabled");
  });
});
