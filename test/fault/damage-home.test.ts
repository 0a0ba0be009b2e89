import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { processesOf, seeProcess } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

/** Ends with 7 when the file appears. */
const Waiter = {
  template_id: "Waiter",
  command: "sh",
  args: ["-c", 'while [ ! -e "$0" ]; do sleep 0.05; done; exit 7', "{{params.file}}"],
  params: { file: { type: "string" } },
  restart: { policy: "never" },
};

let daemon: TestDaemon;
beforeEach(async () => {
  daemon = await startDaemon({ templates: [Waiter] });
});
afterEach(async () => {
  const { home } = daemon;
  await daemon.stop();
  for (const { pid } of processesOf(home)) process.kill(pid, "SIGKILL");
});

const at = (name: string) => join(daemon.home, name);
const create = (agent_id: string) =>
  daemon.client.agents.create({
    agent_id,
    template_id: "Waiter",
    params: { file: join(daemon.project, agent_id) },
  });
const release = (agent_id: string) => writeFileSync(join(daemon.project, agent_id), "");
const ended = (agent_id: string) =>
  waitFor(async () => (await daemon.client.agents.get(agent_id)).last_exit, {
    what: `the end of ${agent_id}`,
    timeoutMs: 10_000,
  });

const DAMAGE: Record<string, (path: string) => void> = {
  fifo: (path) => void execFileSync("mkfifo", [path]),
  folder: (path) => mkdirSync(path),
  link: (path) => symlinkSync(join(daemon.project, "says-zero"), path),
  garbage: (path) => writeFileSync(path, "exit 0\nexit 1\n"),
  nothing: (path) => writeFileSync(path, ""),
  absent: () => {},
};

test("a status file that was replaced is never believed, followed or waited for", async () => {
  writeFileSync(join(daemon.project, "says-zero"), "exit 0\n");
  const kinds = Object.keys(DAMAGE);
  const damage = async (id: string, kind: string) => {
    const { run_id } = await create(id);
    const path = at(`agents/${id}/runs/${run_id}.status`);
    rmSync(path);
    DAMAGE[kind]?.(path);
  };
  for (const kind of kinds) {
    await damage(kind, kind);
    release(kind);
  }
  for (const kind of kinds) expect([kind, await ended(kind)]).toMatchObject([kind, { kind: "lost" }]);
  expect(readFileSync(join(daemon.project, "says-zero"), "utf8")).toBe("exit 0\n");

  // The same for those that end while no daemon lives.
  for (const kind of kinds) await damage(`${kind}-2`, kind);
  process.kill(daemon.pid() as number, "SIGKILL");
  await waitFor(() => daemon.pid() === undefined, { what: "the lock to be free" });
  for (const kind of kinds) release(`${kind}-2`);
  await waitFor(() => processesOf(daemon.home).length === 0, { what: "their ends" });
  await daemon.start();
  for (const kind of kinds) expect([kind, await ended(`${kind}-2`)]).toMatchObject([kind, { kind: "lost" }]);
});

test("an agent whose folder was removed runs on, ends as itself, and starts again", async () => {
  const { pid } = await create("a");
  const runs = () => /^\S*sh -c while/.test(seeProcess(pid as number)?.command ?? "");
  await waitFor(runs, { what: "the agent itself", diagnose: () => seeProcess(pid as number) });
  rmSync(at("agents/a"), { recursive: true });
  expect((await daemon.client.agents.get("a")).pid).toBe(pid);
  release("a");
  expect(await ended("a")).toMatchObject({ kind: "lost", success: false });
  rmSync(join(daemon.project, "a"));
  expect((await daemon.client.agents.start("a")).state).toBe("running");
});

test("a socket, a token, a daemon.json that were removed: the daemon is reached, and they come back", async () => {
  const { pid } = await create("a");
  rmSync(at("daemon.sock"));
  expect((await daemon.cli(["agent", "status", "a"])).stdout).toContain(String(pid));
  await waitFor(() => existsSync(at("daemon.sock")), { what: "the socket to come back" });
  expect((await daemon.client.agents.get("a")).pid).toBe(pid);

  rmSync(at("token"));
  const without = await daemon.cli(["list"]);
  expect([without.code, without.stderr]).toEqual([3, expect.stringContaining("token rotate")]);
  expect(await daemon.cli(["token", "rotate"])).toMatchObject({ code: 0 });
  expect((await daemon.cli(["list"])).code).toBe(0);

  for (const content of ["", "{", "garbage", '{"pid":1}']) {
    writeFileSync(at("daemon.json"), content);
    expect([content, (await daemon.cli(["status"])).stdout]).toEqual([
      content,
      expect.stringContaining("is ready"),
    ]);
  }
  rmSync(at("daemon.json"));
  expect((await daemon.cli(["restart"])).code).toBe(0);
  expect(JSON.parse(readFileSync(at("daemon.json"), "utf8"))).toMatchObject({ pid: daemon.pid() });
  expect((await daemon.client.agents.get("a")).pid).toBe(pid);
  const again = await daemon.cli(["start", "--config", daemon.config, "--port", "0"]);
  expect([again.code, again.stderr]).toEqual([5, expect.stringContaining(String(daemon.pid()))]);
});

test("a home that vanishes while the daemon runs: agents live, and all is well when it comes back", async () => {
  const { pid } = await create("a");
  renameSync(daemon.home, `${daemon.home}-moved`);
  expect(seeProcess(pid as number)).toBeDefined();
  renameSync(`${daemon.home}-moved`, daemon.home);
  expect((await daemon.client.agents.get("a")).pid).toBe(pid);
  await create("b");
  chmodSync(daemon.home, 0o777);
  expect((await daemon.client.agents.list()).items).toHaveLength(2);
  expect((await daemon.cli(["restart"])).code).not.toBe(0);
  chmodSync(daemon.home, 0o700);
  expect((await daemon.cli(["restart"])).code).toBe(0);
  expect((await daemon.client.agents.get("a")).pid).toBe(pid);
});

test.each([
  ["spaces and other scripts", "a b  ünï 家 $x"],
  ["more bytes than a socket's path takes", "long".repeat(40)],
])("a home with %s in its path", async (_, name) => {
  const other = await startDaemon({ home: join(daemon.project, name, "home"), templates: [Waiter] });
  try {
    const agent = await other.client.agents.create({
      agent_id: "a",
      template_id: "Waiter",
      params: { file: join(daemon.project, "never") },
    });
    process.kill(other.pid() as number, "SIGKILL");
    await waitFor(() => other.pid() === undefined, { what: "the lock to be free" });
    await other.start();
    expect((await other.client.agents.get("a")).pid).toBe(agent.pid);
    expect((await other.cli(["list"])).stdout).toContain(String(agent.pid));
  } finally {
    await other.stop();
  }
});
