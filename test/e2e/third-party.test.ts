import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { cp, symlink } from "node:fs/promises";
import { getPriority, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { identify } from "../../bin/daemon/process-identity.js";
import type { MessageBus } from "../../core/index.js";
import {
  environmentOf,
  type InstalledDaemon,
  installedDaemon,
  mustRun,
  npmInstall,
  pack,
  ROOT,
  runProgram,
  TSC,
} from "../helpers/package.js";
import { waitFor } from "../helpers/wait-for.js";

const PLUGIN = "openstarry-plugin-quiet-hours";
const SPAWNER = "openstarry-spawner-niced";
const POLICY = "openstarry-plugin-team-memory";
const BUS = "openstarry-bus-line";
const STATE = "openstarry-state-lines";
/** These have a copy each of the daemon's package; the others share that of the first. */
const WITH_COPIES = ["third-party-plugin", "third-party-spawner", "third-party-policy"];
const PARTIES = [...WITH_COPIES, "third-party-bus", "third-party-state-store"];
/** Those that bring tests along, and how many at least. */
const TESTED: [string, number][] = [
  ["third-party-spawner", 10],
  ["third-party-policy", 1],
  ["third-party-bus", 30],
  ["third-party-state-store", 30],
];
const Niced = { template_id: "Niced", command: "sleep", args: ["1000"], spawner: "niced" };
const Plain = { template_id: "Plain", command: "sleep", args: ["1000"] };
const Holder = {
  template_id: "Holder",
  command: process.execPath,
  args: ["-e", "const held = Buffer.alloc(96 << 20, 1); setInterval(() => held, 1e6)"],
};

/** Of `client.ts` of that example. */
interface BusClient {
  connectByUrl(
    url: string,
  ): Promise<Pick<MessageBus, "publish" | "subscribe"> & { readonly closed: Promise<void> }>;
}

let root: string;
let missing: string | undefined;
let daemon: InstalledDaemon | undefined;

/** Copies of the examples, outside of the repository, with the packed daemon in their `node_modules`. */
async function makeThirdParties(tgz: string): Promise<string | undefined> {
  const isSource = (path: string) => !/\/(dist|node_modules|package-lock\.json)$/.test(path);
  for (const name of PARTIES) {
    cpSync(join(ROOT, "examples", name), join(root, name), { recursive: true, filter: isSource });
    const file = join(root, name, "package.json");
    const manifest = JSON.parse(readFileSync(file, "utf8"));
    // The compiler is the repository's: it is the one thing here that is large and not under test.
    const { typescript: _, ...others } = manifest.devDependencies;
    manifest.devDependencies = { ...others, "openstarry-daemon": `file:${tgz}` };
    writeFileSync(file, JSON.stringify(manifest));
  }
  const [first = "", ...more] = PARTIES;
  const modulesOf = (name: string) => join(root, name, "node_modules");
  const problem = await npmInstall(join(root, first), []);
  // The same again would take npm several seconds.
  const provide = (name: string) =>
    WITH_COPIES.includes(name)
      ? cp(modulesOf(first), modulesOf(name), { recursive: true, verbatimSymlinks: true })
      : symlink(modulesOf(first), modulesOf(name));
  if (problem === undefined) await Promise.all(more.map(provide));
  return problem;
}

/** A folder with a config and templates, and nothing of the daemon in it. */
async function makeProject(name: string, packages: readonly string[]): Promise<string> {
  const folder = join(root, name);
  mkdirSync(join(folder, "templates"), { recursive: true });
  writeFileSync(join(folder, "package.json"), '{ "private": true }');
  for (const template of [Niced, Plain, Holder]) {
    writeFileSync(join(folder, "templates", `${template.template_id}.json`), JSON.stringify(template));
  }
  expect(await npmInstall(folder, packages)).toBeUndefined();
  expect(existsSync(join(folder, "node_modules/openstarry-daemon"))).toBe(false);
  return folder;
}

/** The globally installed daemon in this folder, with these plugins in its config. */
async function startIn(folder: string, plugins: readonly unknown[]): Promise<InstalledDaemon> {
  writeFileSync(
    join(folder, "openstarry.config.json"),
    JSON.stringify({ templates: ["./templates"], plugins }),
  );
  const command = [join(root, "global/bin/openstarry-daemon")];
  daemon = installedDaemon({ command, cwd: folder, home: mkdtempSync(join(root, "home-")) });
  await daemon.start();
  return daemon;
}

/** Options of quiet-hours: from some hours from now to some more. */
function hours(from: number, to: number): { from: number; to: number } {
  const now = new Date().getHours();
  return { from: (now + from) % 24, to: (now + to) % 24 };
}
const QUIET_NOW = hours(0, 3);
const QUIET_LATER = hours(4, 6);

/** proc(5): field 19 of `stat`; what follows the name's last bracket begins with field 3. */
function nicenessOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[16]);
}

/** The environment of the template's `sleep`, once nice(1) has become that. */
function environmentOfProgram(pid: number): Promise<Record<string, string>> {
  const look = () => {
    // A process that is just executing something has none.
    const env = environmentOf(pid);
    return readFileSync(`/proc/${pid}/comm`, "utf8") === "sleep\n" && "PATH" in env && env;
  };
  return waitFor(look, { what: "nice(1) to become the program" });
}

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "openstarry-third-party-"));
  const { file } = await pack(root);
  mkdirSync(join(root, "global"));
  const problems = await Promise.all([
    npmInstall(root, ["--global", "--prefix", join(root, "global"), file]),
    makeThirdParties(file),
  ]);
  missing = problems.find((it) => it !== undefined);
  if (missing !== undefined) return;
  for (const name of PARTIES) await mustRun(process.execPath, [TSC, "-p", "."], { cwd: join(root, name) });
}, 240_000);
afterEach(() => daemon?.stop());
afterAll(() => rmSync(root, { recursive: true, force: true, maxRetries: 5 }), 120_000);

describe("the published types", () => {
  const ways: [string, string[]][] = [
    ["as Node resolves modules", ["--module", "nodenext"]],
    ["as bundlers do", ["--module", "esnext", "--moduleResolution", "bundler"]],
  ];
  test.for(ways)("hold in other packages, %s, declarations included", async ([, how], { skip }) => {
    if (missing !== undefined) skip(missing);
    const folder = join(root, "third-party-plugin");
    cpSync(join(ROOT, "test/fixtures/consumer.ts"), join(folder, "consumer.ts"));
    const strict = ["--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess"];
    const checks = ["--noEmit", "--skipLibCheck", "false", "--target", "es2022", "--types", "node"];
    const others = PARTIES.slice(1).map((name) => `../${name}/index.ts`);
    const files = ["index.ts", "consumer.ts", ...others];
    const args = [TSC, "--ignoreConfig", ...how, ...strict, ...checks, ...files];
    const { code, stdout } = await runProgram(process.execPath, args, { cwd: folder });
    expect([code, stdout]).toEqual([0, ""]);
  });
});

const TESTS_TIMEOUT_MS = 120_000;
test.for(TESTED)(
  "%s passes its tests, in Node's own test runner",
  {
    timeout: TESTS_TIMEOUT_MS,
  },
  async ([name, least], { skip }) => {
    if (missing !== undefined) skip(missing);
    const { code, stdout } = await runProgram("npm", ["test"], { cwd: join(root, name) });
    expect(code, stdout).toBe(0);
    expect(Number(/^. pass (\d+)$/m.exec(stdout)?.[1])).toBeGreaterThanOrEqual(least);
    expect(stdout.match(/^. (fail|cancelled|skipped) 0$/gm)).toHaveLength(3);
  },
);

describe("with copies of the daemon's package of their own", () => {
  let project: string;

  beforeAll(async () => {
    if (missing !== undefined) return;
    // As links: each finds the daemon's package in its own folder, and not the one that runs.
    project = await makeProject(
      "linked",
      PARTIES.map((name) => `../${name}`),
    );
    for (const name of WITH_COPIES) {
      const copy = join(root, name, "node_modules/openstarry-daemon");
      const entry = join(copy, "dist/core/index.js");
      const trace = `import { writeFileSync as write } from "node:fs";\nwrite(new URL("../../loaded", import.meta.url), "");\n`;
      writeFileSync(entry, trace + readFileSync(entry, "utf8"));
      rmSync(join(copy, "loaded"), { force: true });
    }
  });

  test("all load by package name, and take part in the life of an agent", async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const { client, cli, home, kill, start } = await startIn(project, [
      [PLUGIN, QUIET_LATER],
      [SPAWNER, { niceness: 7 }],
      [POLICY, { memory_max: "1GiB" }],
    ]);
    for (const name of WITH_COPIES) {
      expect(existsSync(join(root, name, "node_modules/openstarry-daemon/loaded"))).toBe(true);
    }
    const { items } = JSON.parse((await cli("plugins", "--json")).stdout);
    expect(items).toMatchObject(
      expect.arrayContaining([
        expect.objectContaining({
          name: "quiet-hours",
          origin: "config",
          state: "started",
          version: "1.0.0",
        }),
        expect.objectContaining({ name: "spawner-niced", origin: "config", state: "started" }),
      ]),
    );

    const agent = await client.agents.create({ agent_id: "nice", template_id: "Niced" });
    const pid = agent.pid ?? 0;
    const env = await environmentOfProgram(pid);
    expect(nicenessOf(pid)).toBe(getPriority() + 7);
    const { from, to } = QUIET_LATER;
    expect(env).toMatchObject({ QUIET_HOURS: `${from}-${to}`, OPENSTARRY_AGENT_ID: "nice" });

    await kill();
    await start();
    const adopted = await client.agents.get("nice");
    expect(adopted).toMatchObject({ pid, run_id: agent.run_id, spawner: "niced", restarts: 0 });

    await client.agents.remove("nice");
    expect(identify(pid)).toBeUndefined();
    const ends = readFileSync(join(home, "quiet-hours/ends.jsonl"), "utf8").trim().split("\n");
    expect(ends.map((line) => JSON.parse(line))).toEqual([
      { agent_id: "nice", run_id: agent.run_id, kind: "signaled", cause: "stop_request" },
    ]);
  });

  test("the policy stops the largest of a team, and why says so, with its figures", async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const { client, cli } = await startIn(project, [
      ["sampler-procfs", { interval: "250ms" }],
      [POLICY, { memory_max: "80MiB" }],
    ]);
    const labels = { team: "red" };
    await client.agents.create({ agent_id: "small", template_id: "Plain", labels });
    await client.agents.create({ agent_id: "large", template_id: "Holder", labels });
    const ended = await client.agents.wait("large", { for: "ended", timeoutMs: 30_000 });
    expect(ended).toMatchObject({
      state: "stopped",
      last_exit: { cause: "policy", actor: "plugin:team-memory" },
    });
    expect((await client.agents.get("small")).state).toBe("running");

    const why = (await cli("why", "large")).stdout.replace(/\s+/g, " ");
    expect(why).toMatch(
      /large is stopped: team red uses \d+MiB, over 80MiB; \d+MiB of it is this one's, the most of 2/,
    );
    expect(why).toContain("stopped by plugin team-memory (status 143: terminated by SIGTERM)");
    expect(why).toMatch(/Usage before the last exit \(.*\): memory [▁-█]+ .* to \d+MiB/);
    expect((await cli("plugins")).stdout).not.toContain("degraded");
  });

  test("agents have keys of their own to the bus, which outlives the daemon, and they end with the run", async ({
    skip,
  }) => {
    if (missing !== undefined) skip(missing);
    const clientFile = join(root, "third-party-bus/dist/client.js");
    const Talker = {
      template_id: "Talker",
      command: process.execPath,
      args: [join(ROOT, "test/fixtures/agents/line-talker.mjs"), clientFile],
      requires: ["bus"],
    };
    writeFileSync(join(project, "templates/Talker.json"), JSON.stringify(Talker));
    const { client, cli, home, kill, start } = await startIn(project, [BUS]);
    const ready = (id: string) => client.agents.wait(id, { for: "ready", timeoutMs: 30_000 });
    for (const agent_id of ["a", "b"]) await client.agents.create({ agent_id, template_id: "Talker" });
    const [a, b] = [await ready("a"), await ready("b")];
    const service = await ready("svc:line");
    const answer = async (to: string, payload: object) =>
      (await client.bus.request(`shared/to/${to}`, payload)).payload;
    expect(await answer("a", {})).toEqual({ agent: "a", asked_by: "operator" });
    const throughBoth = { agent: "b", asked_by: "agent:a", answered_by: "agent:b" };
    expect(await answer("a", { ask: "b" })).toEqual(throughBoth);

    // What only this run's process was given, and what each can do with it.
    const { connectByUrl }: BusClient = await import(clientFile);
    const urlOf = (pid = 0) => environmentOf(pid)["OPENSTARRY_BUS_URL"] ?? "";
    const [urlOfA, urlOfB] = [urlOf(a.pid), urlOf(b.pid)];
    const keyOf = (url: string) => new URL(url).searchParams.get("key") ?? "";
    expect(keyOf(urlOfA)).not.toBe(keyOf(urlOfB));
    const away = { code: "bus_unavailable" };
    await expect(connectByUrl(urlOfB.replace(keyOf(urlOfB), keyOf(urlOfA)))).rejects.toMatchObject(away);
    const own = await connectByUrl(urlOfA);
    const { signal } = new AbortController();
    const foreign = own.subscribe({ filter: "agents/b/#", after: "0", signal })[Symbol.asyncIterator]();
    await expect(foreign.next()).rejects.toMatchObject({ code: "forbidden" });

    await kill();
    // Nobody is there but the agents and the broker.
    await own.publish({ topic: "shared/to/b", payload: Buffer.from("{}"), reply_to: "shared/meanwhile" });
    const meanwhile = own
      .subscribe({ filter: "shared/meanwhile", after: "0", signal })
      [Symbol.asyncIterator]();
    expect((await meanwhile.next()).value).toMatchObject({ from: "agent:b" });
    await start();
    expect(await ready("svc:line")).toMatchObject({ pid: service.pid, run_id: service.run_id, restarts: 0 });
    expect(await ready("b")).toMatchObject({ pid: b.pid, restarts: 0 });
    // Its connection to the broker comes a moment later.
    const again = () => answer("a", { ask: "b" }).catch(() => undefined);
    expect(await waitFor(again, { what: "the daemon on the bus" })).toEqual(throughBoth);

    await client.agents.remove("a");
    await own.closed;
    await expect(connectByUrl(urlOfA)).rejects.toMatchObject(away);
    expect(await answer("b", {})).toMatchObject({ agent: "b" });

    const secrets = [readFileSync(join(home, "bus-line/secret"), "utf8"), keyOf(urlOfA), keyOf(urlOfB)];
    const told = ["daemon.log", "journal.db", "journal.db-wal"]
      .map((name) => join(home, name))
      .filter(existsSync);
    const { pid = 0 } = service;
    const seen = [...told, `/proc/${pid}/cmdline`, `/proc/${pid}/environ`, `/proc/${b.pid}/cmdline`];
    const texts = [
      ...seen.map((file) => readFileSync(file, "latin1")),
      (await cli("list", "--all", "--json")).stdout,
    ];
    for (const secret of secrets) expect(texts.filter((text) => text.includes(secret))).toEqual([]);
    const folder = join(home, "bus-line");
    for (const name of ["secret", "bus.sock"]) expect(statSync(join(folder, name)).mode & 0o777).toBe(0o600);
    expect(statSync(folder).mode & 0o777).toBe(0o700);
  });

  test("what the state store has acknowledged is there after a kill -9", async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const { client, kill, start } = await startIn(project, [STATE]);
    const entry = await client.state.put("shared", "plan", { step: 1 });
    await client.state.put("shared", "gone", 1);
    await client.state.delete("shared", "gone");
    await kill();
    await start();
    expect(await client.state.get("shared", "plan")).toMatchObject({
      value: { step: 1 },
      version: entry.version,
    });
    const keys: string[] = [];
    for await (const { key } of client.state.list("shared")) keys.push(key);
    expect(keys).toEqual(["plan"]);
  });

  test("the daemon knows the errors of another copy by their name", async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const { client } = await startIn(project, [
      [PLUGIN, QUIET_NOW],
      [SPAWNER, {}],
      ["spawner-process", false],
    ]);
    // Thrown by the spawner, an OpenStarryError of its own copy.
    await expect(client.agents.create({ template_id: "Niced" })).rejects.toMatchObject({
      code: "spawner_not_found",
      message: "spawner niced needs the spawner process, and it is not loaded",
      hint: expect.stringContaining("spawner-process"),
    });
    await daemon?.stop();

    const quiet = await startIn(project, [[PLUGIN, QUIET_NOW]]);
    const { from, to } = QUIET_NOW;
    // Thrown by the tap, a SpawnDeferred of its own copy.
    expect(await quiet.client.agents.create({ agent_id: "a", template_id: "Plain" })).toMatchObject({
      state: "pending",
      reason: `it is quiet from ${from}:00 to ${to}:00`,
    });
  });

  test("wrong options are refused at the start, with their place", async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const plugins = [
      [PLUGIN, { from: 22, till: 6 }],
      [SPAWNER, { niceness: 20 }],
    ];
    const refused = await startIn(project, plugins).catch(({ message }: Error) => message);
    expect(refused).toContain("exit 2");
    expect(refused).toContain("plugins[0]: options of plugin quiet-hours: till: unknown key");
    expect(refused).toContain(
      "plugins[1]: options of plugin spawner-niced: niceness: expected a whole number",
    );
  });
});

test("without any copy they get the modules of the daemon that loads them", async ({ skip }) => {
  if (missing !== undefined) skip(missing);
  const packed = PARTIES.map((it) => pack(root, join(root, it)));
  const files = (await Promise.all(packed)).map(({ file }) => file);
  const project = await makeProject("packed", files);
  const { client } = await startIn(project, [
    [PLUGIN, QUIET_LATER],
    SPAWNER,
    [POLICY, { memory_max: "1GiB" }],
  ]);
  const { pid = 0 } = await client.agents.create({ template_id: "Niced" });
  expect(await environmentOfProgram(pid)).toHaveProperty("QUIET_HOURS");
  expect(nicenessOf(pid)).toBe(getPriority() + 10);
});
