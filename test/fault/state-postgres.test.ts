import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import type { StateChange } from "../../core/index.js";
import { crash } from "../helpers/crash.js";
import { type DaemonOptions, startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { operatorOf } from "../helpers/operator.js";
import { noPostgres } from "../helpers/postgres.js";
import { allProcesses, processesOf, processesOfAgent, seeProcess } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const ID = "svc:state-postgres";
const START_MS = 30_000;
const isRoot = process.geteuid?.() === 0;

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
}, 60_000);

async function start(options: Record<string, unknown> = {}, more: DaemonOptions = {}): Promise<TestDaemon> {
  daemon = await startDaemon({
    ...more,
    config: { plugins: [["state-postgres", { managed: true, ...options }]] },
  });
  return daemon;
}

const folderOf = ({ home }: TestDaemon) => join(home, "state-postgres");
const put = (it: TestDaemon, key: string, value: unknown) =>
  operatorOf(it.home).post("/state/shared", { writes: [{ op: "put", key, value }] });

/** Writes until it is answered well: the server is started by the first that needs it. */
async function putOne(it: TestDaemon, key: string, value: unknown): Promise<number> {
  const answered = async () => {
    const { status, json } = await put(it, key, value);
    return status === 200 && (json["items"] as { version: number }[])[0]?.version;
  };
  const diagnose = async () => [await put(it, key, value), (await it.cli(["logs", ID])).stdout.slice(-2_000)];
  return waitFor(answered, { what: "a write to be taken", timeoutMs: START_MS, diagnose });
}

const serverPid = async (it: TestDaemon) => (await it.client.agents.get(ID)).pid as number;

async function nextServer(it: TestDaemon, before: number): Promise<number> {
  const look = async () => {
    const { pid, state } = await it.client.agents.get(ID);
    return state === "running" && pid !== before ? pid : undefined;
  };
  return waitFor(look, { what: "the next server", timeoutMs: START_MS });
}

describe.skipIf(noPostgres !== undefined)("a PostgreSQL of the daemon's own", () => {
  test("killed again and again amid writes: nothing acknowledged is lost, watches go on, the daemon stays", async () => {
    const it = await start();
    const master = it.pid();
    await putOne(it, "first", 0);
    const seen: StateChange[] = [];
    const ended = new AbortController();
    const watch = (async () => {
      for await (const change of it.client.state.watch("shared", { after: 0, signal: ended.signal }))
        seen.push(change as StateChange);
    })().catch((error) => error);
    const acknowledged = new Map<string, { value: number; version: number }>();
    let isOver = false;
    const lane = async (_: unknown, index: number) => {
      // Keys are written once each: a watch has to tell of every one.
      for (let value = 0; !isOver; value++) {
        const key = `${index}/${value}`;
        const { status, json } = await put(it, key, value);
        const [item] = (json["items"] ?? []) as { version: number }[];
        if (status === 200 && item) acknowledged.set(key, { value, version: item.version });
        else expect([status, json["code"]]).toEqual([503, "state_unavailable"]);
        if (status !== 200) await new Promise((resolve) => setTimeout(resolve, 50));
      }
    };
    const lanes = Array.from({ length: 4 }, lane);
    for (let round = 0; round < 3; round++) {
      const before = acknowledged.size;
      await waitFor(() => acknowledged.size > before + 40, { what: "traffic", timeoutMs: START_MS });
      const pid = await serverPid(it);
      process.kill(pid, "SIGKILL");
      const isDegraded = async () =>
        (await it.client.daemon.status()).problems.join().includes("state-postgres");
      await waitFor(isDegraded, { what: "the daemon to say so", timeoutMs: 10_000 });
      await nextServer(it, pid);
    }
    const before = acknowledged.size;
    await waitFor(() => acknowledged.size > before + 40, { what: "traffic", timeoutMs: START_MS });
    isOver = true;
    await Promise.all(lanes);
    expect(it.pid()).toBe(master);
    const isWell = async () => (await it.client.daemon.status()).problems.length === 0;
    await waitFor(isWell, { what: "the daemon to recover" });

    const last = await putOne(it, "last", 0);
    const versions = [...acknowledged.values()].map(({ version }) => version);
    expect(new Set(versions).size).toBe(versions.length);
    expect(Math.max(...versions)).toBeLessThan(last);
    const found = new Map<string, { value: unknown; version: number }>();
    for await (const { key, value, version } of it.client.state.list("shared"))
      found.set(key, { value, version });
    for (const [key, entry] of acknowledged) expect([key, found.get(key)]).toEqual([key, entry]);

    await waitFor(() => seen.some((it) => it.type === "put" && it.entry.key === "last"), {
      what: "the last",
    });
    ended.abort();
    await watch;
    expect(seen.filter(({ type }) => type !== "put")).toEqual([]);
    const told = new Map(seen.map((it) => (it.type === "put" ? [it.entry.key, it.entry.version] : ["", 0])));
    for (const [key, { version }] of found) expect([key, told.get(key)]).toEqual([key, version]);
  }, 180_000);

  test("a daemon that is killed leaves it running, and the next one adopts it", async () => {
    const it = await start();
    const version = await putOne(it, "k", "kept");
    const pid = await serverPid(it);
    await crash(it);
    expect(seeProcess(pid)).toBeDefined();
    await it.start();
    expect(await putOne(it, "l", 1)).toBe(version + 1);
    expect(await it.client.state.get("shared", "k")).toMatchObject({ value: "kept" });
    expect(await it.client.agents.get(ID)).toMatchObject({ pid, restarts: 0, state: "running" });
    const servers = allProcesses().filter(({ command }) => command.includes(`-D ${folderOf(it)}/data`));
    expect(servers.map((one) => one.pid)).toEqual([pid]);
  }, 120_000);

  test("what a killed server left does not keep the next one from starting, nor does one that was cut short", async () => {
    const it = await start();
    const data = join(folderOf(it), "data");
    // The first start is cut short while the data folder is being made.
    const first = put(it, "k", 1);
    const isMade = () => existsSync(`${data}.new`) && !existsSync(data);
    await waitFor(isMade, { what: "the data folder to be begun", timeoutMs: START_MS });
    const cutShort = await serverPid(it);
    process.kill(cutShort, "SIGKILL");
    await first;
    await putOne(it, "k", "kept");
    expect(existsSync(`${data}.new`)).toBe(false);

    // All is killed, and its pid belongs to somebody else by the time of the next start.
    const pid = await serverPid(it);
    await crash(it);
    for (const { pid } of processesOfAgent(it.home, ID)) process.kill(pid, "SIGKILL");
    await waitFor(() => processesOf(it.home).length === 0, { what: "the end of all" });
    expect(seeProcess(pid)).toBeUndefined();
    const lock = join(data, "postmaster.pid");
    writeFileSync(lock, readFileSync(lock, "utf8").replace(/^\d+/, String(process.pid)));
    await it.start();
    await putOne(it, "l", 1);
    expect(await it.client.state.get("shared", "k")).toMatchObject({ value: "kept" });
    expect(await it.client.agents.get(ID)).toMatchObject({ state: "running" });
  }, 120_000);

  test("nobody else gets in, and its password is nowhere to be seen", async () => {
    const it = await start({ eager: true });
    await putOne(it, "k", 1);
    const folder = folderOf(it);
    for (const path of [folder, join(folder, "run"), join(folder, "data")])
      expect([path, statSync(path).mode & 0o777]).toEqual([path, 0o700]);
    const file = join(folder, "password");
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const password = readFileSync(file, "utf8").trim();
    const socket = join(folder, "run", ".s.PGSQL.5432");
    expect(existsSync(socket)).toBe(true);

    const pid = await serverPid(it);
    expect(readFileSync(`/proc/${pid}/net/tcp`, "utf8")).not.toMatch(/:1538 0+:0000 0A/);
    const script = `
      const pg = require(${JSON.stringify(join(process.cwd(), "node_modules/pg"))});
      const [host, user, password] = process.argv.slice(1);
      const client = new pg.Client({ host, user, password, database: "postgres" });
      client.connect().then(() => console.log("in"), (error) => console.log(error.code)).finally(() => process.exit());`;
    const enter = (user: string, given: string, as: object = {}) =>
      spawnSync(process.execPath, ["-e", script, join(folder, "run"), user, given], {
        ...as,
        encoding: "utf8",
      });
    expect(enter("openstarry", "wrong").stdout.trim()).toBe("28P01");
    expect(enter("openstarry", "").stdout.trim()).not.toBe("in");
    expect(enter("postgres", "wrong").stdout.trim()).toBe("28000");
    expect(enter("openstarry", password).stdout.trim()).toBe("in");
    if (isRoot) {
      const stranger = { uid: 65_534, gid: 65_534, cwd: "/" };
      const { stdout, stderr } = enter("openstarry", password, stranger);
      expect(stdout + stderr).toMatch(/EACCES/);
    } else console.log("skipped: to be another user takes root");

    expect(allProcesses().filter(({ command }) => command.includes(password))).toEqual([]);
    const { stdout } = await it.cli(["logs", ID]);
    const status = JSON.stringify([await it.client.agents.get(ID), await it.client.daemon.status()]);
    const files = [...readdirSync(it.home), "daemon.log"].map((name) => join(it.home, name));
    const contents = files
      .filter((path) => statSync(path).isFile())
      .map((path) => readFileSync(path, "latin1"));
    expect([stdout, status, ...contents].some((text) => text.includes(password))).toBe(false);
  }, 120_000);

  test("what is missing, or of another version, is told at the start, with what to do", async () => {
    const said = async (options: Record<string, unknown>, more: DaemonOptions = {}) =>
      start(options, more).then(
        () => "it started",
        (error: Error) => error.message,
      );
    const missing = await said({ bin_dir: "/nonexistent" });
    expect(missing).toMatch(/state-postgres is to run postgres/);
    expect(missing).toMatch(/apt install postgresql/);
    const broken = mkdtempSync(join(tmpdir(), "openstarry-test-"));
    for (const name of ["postgres", "initdb"])
      writeFileSync(join(broken, name), "#!/bin/sh\nexit 127\n", { mode: 0o755 });
    expect(await said({ bin_dir: broken })).toMatch(/postgres does not answer to --version.*apt install/s);
    rmSync(broken, { recursive: true });
    expect(await said({ managed: false })).toMatch(/url: say which server to use/);
    if (isRoot) {
      // As in most containers: root may not be somebody else in a namespace of its own.
      const folder = mkdtempSync(join(tmpdir(), "openstarry-test-"));
      writeFileSync(join(folder, "unshare"), "#!/bin/sh\nexit 1\n", { mode: 0o755 });
      const env = { PATH: `${folder}:${process.env["PATH"]}` };
      expect(await said({}, { env })).toMatch(/refuses to be run by root/);
      rmSync(folder, { recursive: true });
    } else console.log("skipped: that PostgreSQL refuses root takes root");

    const it = await start();
    const data = join(folderOf(it), "data");
    await it.cli(["stop"]);
    mkdirSync(data);
    writeFileSync(join(data, "PG_VERSION"), "11\n");
    const error = await it.start().catch((error: Error) => error);
    expect((error as Error).message).toMatch(/was made by PostgreSQL 11, and .* holds \d+/);
    expect(readdirSync(data)).toEqual(["PG_VERSION"]);
    rmSync(data, { recursive: true });
  }, 120_000);
});
