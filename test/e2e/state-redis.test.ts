import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { fixtureAgent } from "../helpers/agents.js";
import { agentWhen, crash } from "../helpers/crash.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { allProcesses, environOf, processesOf } from "../helpers/processes.js";
import { noRedis, startRedis } from "../helpers/redis-server.js";
import { waitFor } from "../helpers/wait-for.js";

const Needs = { template_id: "Needs", ...fixtureAgent("sleeper.sh"), requires: ["state"] };
const ID = "svc:state-redis";

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

async function start(options: Record<string, unknown>): Promise<TestDaemon> {
  daemon = await startDaemon({ config: { plugins: [["state-redis", options]] }, templates: [Needs] });
  return daemon;
}

const running = (it: TestDaemon) => agentWhen(it, ID, ({ state }) => state === "running");
const usable = ({ client }: TestDaemon) =>
  waitFor(() => client.state.put("shared", "probe", 1), { what: "the state store", timeoutMs: 15_000 });
const serversOf = ({ home }: TestDaemon) =>
  allProcesses().filter(
    ({ command }) => command.includes(join(home, "state-redis", "redis.conf")) && !command.includes("shim"),
  );

describe.skipIf(noRedis)("the managed Redis server of state-redis", () => {
  test("the server starts for an agent that requires state, with private files, and its password appears nowhere", async () => {
    const it = await start({ managed: true });
    await expect(it.client.agents.get(ID)).rejects.toMatchObject({ code: "agent_not_found" });
    await it.client.agents.create({ agent_id: "worker", template_id: "Needs" });
    const worker = await it.client.agents.wait("worker", { for: "ready", timeoutMs: 15_000 });
    expect(environOf(worker.pid as number)["OPENSTARRY_STATE_URL"]).toMatch(/^http.*state$/);
    await running(it);
    await it.client.state.put("shared", "k", { a: 1 });
    expect(await it.client.state.get("shared", "k")).toMatchObject({ value: { a: 1 } });

    const folder = join(it.home, "state-redis");
    const modes = ["", "redis.conf", "password", "redis.sock", "appendonlydir"].map(
      (name) => statSync(join(folder, name)).mode & 0o077,
    );
    expect(modes).toEqual([0, 0, 0, 0, expect.any(Number)]);
    const password = readFileSync(join(folder, "password"), "utf8").trim();
    const visible = [
      ...allProcesses().map((process) => process.command + JSON.stringify(environOf(process.pid))),
      readFileSync(join(it.home, "daemon.log"), "utf8"),
      JSON.stringify(await it.client.agents.get(ID)),
      (await it.cli(["logs", ID])).stdout,
      (await it.cli(["why", ID, "--json"])).stdout,
      readFileSync(join(it.home, "journal.db"), "latin1"),
    ];
    expect(visible.filter((text) => text.includes(password))).toEqual([]);
  });

  test("the server refuses clients without the password, and other users cannot connect", async ({
    skip,
  }) => {
    const it = await start({ managed: true, eager: true });
    await usable(it);
    const socket = join(it.home, "state-redis", "redis.sock");
    const ping = (uid?: number) => {
      const { stdout, stderr } = spawnSync("redis-cli", ["-s", socket, "ping"], {
        encoding: "utf8",
        env: { PATH: process.env["PATH"] },
        ...(uid === undefined ? {} : { uid, gid: uid }),
      });
      return stdout + stderr;
    };
    expect(ping()).toContain("NOAUTH");
    if (process.geteuid?.() !== 0) skip("only root can try as another user");
    // With accessible folders, the mode of the socket still keeps other users out.
    for (const folder of [it.project, it.home, join(it.home, "state-redis")]) chmodSync(folder, 0o711);
    const refusal = ping(65_534);
    for (const folder of [it.home, join(it.home, "state-redis")]) chmodSync(folder, 0o700);
    expect(refusal).toContain("Permission denied");
  });

  test("the server is adopted after kill -9 of the daemon", async () => {
    const it = await start({ managed: true });
    await it.client.agents.create({ agent_id: "worker", template_id: "Needs" });
    await it.client.agents.wait("worker", { for: "ready", timeoutMs: 15_000 });
    const before = await running(it);
    const { version } = await it.client.state.put("shared", "k", "kept");
    await crash(it);
    await it.start();
    // The daemon connects at once, since the server runs already.
    expect(await it.client.state.get("shared", "k")).toMatchObject({ value: "kept", version });
    expect(await running(it)).toMatchObject({ pid: before.pid, run_id: before.run_id, restarts: 0 });
    expect(serversOf(it)).toHaveLength(1);
  });

  test("a lost password file is replaced, and the server restarted with the new password", async () => {
    const it = await start({ managed: true, eager: true });
    await usable(it);
    await it.client.state.put("shared", "k", "kept");
    const { pid } = await running(it);
    await crash(it);
    rmSync(join(it.home, "state-redis", "password"));
    await it.start();
    await agentWhen(it, ID, (agent) => agent.state === "running" && agent.pid !== pid);
    await usable(it);
    expect(await it.client.state.get("shared", "k")).toMatchObject({ value: "kept" });
  });

  test("the server stops with the daemon, and has its data at the next start", async () => {
    const it = await start({ managed: true, eager: true });
    await usable(it);
    const { version } = await it.client.state.put("shared", "k", "kept");
    expect((await it.cli(["stop"])).code).toBe(0);
    expect(processesOf(it.home)).toEqual([]);
    await it.start();
    await usable(it);
    expect(await it.client.state.get("shared", "k")).toMatchObject({ value: "kept", version });
    expect((await it.cli(["status"])).stdout).not.toContain("problem");
  });
});

test("a missing redis-server or server option fails the daemon's start with a hint", async () => {
  const program = "/nowhere/redis-server";
  await expect(start({ managed: true, program })).rejects.toThrow(/apt install redis-server/);
  await expect(start({})).rejects.toThrow(
    /expected either "managed": true, or the "url" of a running server/,
  );
});

describe.skipIf(noRedis)("an external Redis server of state-redis", () => {
  test("the server is used by its URL and password, which appears nowhere", async () => {
    const password = "correct-horse-battery";
    const server = await startRedis({ requirepass: password });
    const folder = mkdtempSync(join(tmpdir(), "openstarry-password-"));
    const file = join(folder, "password");
    try {
      writeFileSync(file, "wrong-horse-battery");
      const it = await start({ url: server.url, password_file: file });
      expect((await it.cli(["status"])).stdout).toContain("the server rejects the password");
      const refused = { code: "state_unavailable", status: 503 };
      await expect(it.client.state.get("shared", "k")).rejects.toMatchObject(refused);
      writeFileSync(file, password);
      expect((await it.cli(["restart"])).code).toBe(0);
      await it.client.state.put("shared", "k", 1);
      expect(await server.client.keys("*")).toContain("openstarry:state:values:shared");
      expect(readFileSync(join(it.home, "daemon.log"), "utf8")).not.toContain("horse");
    } finally {
      await server.stop();
      rmSync(folder, { recursive: true });
    }
  });
});
