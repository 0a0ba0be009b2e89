import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, expect, test } from "vitest";
import type { Agent } from "../../core/index.js";
import { fixtureAgent } from "../helpers/agents.js";
import { COMMAND, runCli } from "../helpers/daemon.js";
import { environOf, processesOf, seeProcess } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const ROUNDS = 60;
const AGENTS = ["master", "second", "third"];
const PACKAGE = fileURLToPath(new URL("../..", import.meta.url));
const PLUGIN = fileURLToPath(new URL("../fixtures/plugins/journal-that-kills.mjs", import.meta.url));

const folders: string[] = [];
afterEach(async () => {
  for (const folder of folders.splice(0)) {
    const home = join(folder, "home");
    await runCli(["stop", "--home", home], { cwd: folder });
    for (const { pid } of processesOf(home)) process.kill(pid, "SIGKILL");
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  }
});

type Scene = ReturnType<typeof prepare>;

/** A folder with the plugin, a config and its template, and the package as if it was installed there. */
function prepare() {
  const folder = mkdtempSync(join(tmpdir(), "openstarry-gate-"));
  folders.push(folder);
  const at = (name: string) => join(folder, name);
  mkdirSync(at("node_modules"));
  symlinkSync(PACKAGE, at("node_modules/openstarry-daemon"));
  writeFileSync(at("journal.mjs"), readFileSync(PLUGIN));
  mkdirSync(at("templates"));
  const restart = { policy: "always", max_restarts: 1_000_000, backoff: { min: "1ms", max: "1ms" } };
  const template = { template_id: "Marker", ...fixtureAgent("leaves-mark.sh", at("marks")), restart };
  writeFileSync(at("templates/Marker.json"), JSON.stringify(template));
  // As little as a daemon can be: sixty of them are started.
  const without = ["http-api", "agent-manager-tool", "probe-runner", "probe-pid", "probe-heartbeat"];
  without.push("operation-agents", "operation-templates", "operation-daemon");
  const config = {
    agents: AGENTS.map((agent_id) => ({ agent_id, template_id: "Marker" })),
    templates: ["./templates"],
    plugins: ["./journal.mjs", ...without.map((name) => [name, false])],
  };
  writeFileSync(at("openstarry.config.json"), JSON.stringify(config));
  return { folder, home: at("home"), marks: at("marks"), diary: at("diary") };
}

/** A daemon in the foreground. With `kill`, it does that to itself. */
function boot({ folder, home, diary }: Scene, kill?: string) {
  const env = { ...process.env, GATE_DIARY: diary, ...(kill === undefined ? {} : { GATE_KILL: kill }) };
  const args = [COMMAND, "start", "--foreground", "--home", home];
  const child = spawn(process.execPath, args, { cwd: folder, env, stdio: ["ignore", "ignore", "pipe"] });
  const said = { log: "" };
  child.stderr.setEncoding("utf8").on("data", (text) => {
    said.log += text;
  });
  return { said, ended: once(child, "close") as Promise<[number | null, string | null]> };
}

const linesOf = (file: string) =>
  existsSync(file) ? readFileSync(file, "utf8").split("\n").filter(Boolean) : [];

/** The runs whose agents have run, with their pids: what they say themselves. */
function marks(scene: Scene): Map<string, number> {
  return new Map(
    linesOf(scene.marks).map((line) => {
      const [runId = "", pid] = line.split(" ");
      return [runId, Number(pid)];
    }),
  );
}

function diary(scene: Scene) {
  const entries = linesOf(scene.diary).map((line) => JSON.parse(line) as { known?: Agent[]; cut?: string });
  const cut = entries.flatMap((entry) => entry.cut ?? []);
  return {
    known: entries.findLast(({ known }) => known)?.known ?? [],
    cut,
    /** How the runs ended that were known and cut, as later boots had it. */
    ends: entries.flatMap(({ known }) =>
      (known ?? []).flatMap(({ last_exit }) =>
        last_exit && cut.includes(last_exit.run_id ?? "") ? [last_exit] : [],
      ),
    ),
  };
}

const runOf = (pid: number) => environOf(pid)["OPENSTARRY_RUN_ID"] ?? "";

/** After the daemon's end: who is held at its gate goes by itself, who was let go says that it runs. */
async function settled(scene: Scene): Promise<void> {
  await waitFor(() => processesOf(scene.home).every(({ pid }) => marks(scene).has(runOf(pid))), {
    what: "the end of those who were held at their gates",
    diagnose: () => processesOf(scene.home).map((it) => ({ ...it, run: runOf(it.pid) })),
  });
}

/** The living runs, each one session of the agent's and one of its shim. */
const livingRuns = (scene: Scene) => [...new Set(processesOf(scene.home).map(({ pid }) => runOf(pid)))];

async function killAll(scene: Scene): Promise<void> {
  for (const [runId, pid] of marks(scene)) if (runOf(pid) === runId) process.kill(pid, "SIGKILL");
  await waitFor(() => processesOf(scene.home).length === 0, {
    what: "the end of the agents and their shims",
  });
}

/** Answers the runs that were alive when the daemon was dead. */
async function playRound(scene: Scene, kill: string): Promise<Map<string, number>> {
  const { said, ended } = boot(scene, kill);
  const [code, signal] = await ended;
  expect([kill, code, signal, signal === null && said.log]).toEqual([kill, null, "SIGKILL", false]);
  await settled(scene);
  const alive = new Map(livingRuns(scene).map((runId) => [runId, marks(scene).get(runId) ?? 0]));
  for (const [runId, pid] of alive) expect([runId, seeProcess(pid)?.session]).toEqual([runId, pid]);
  // Whoever was known before the kill may have been let go; whom the kill was about never was.
  expect(alive.size).toBeLessThan(Number(kill.split(" ")[0]));
  for (const cut of diary(scene).cut) expect(marks(scene).has(cut)).toBe(false);
  await killAll(scene);
  return alive;
}

function expectKnown(scene: Scene, alive: ReadonlyMap<string, number>): void {
  const known = new Map(diary(scene).known.map(({ run_id, pid }) => [run_id, pid]));
  for (const [runId, pid] of alive) expect([runId, known.get(runId)]).toEqual([runId, pid]);
}

test(`kill -9 between fork and "go", ${ROUNDS} times: no agent runs that the journal does not know`, async () => {
  const scenes = [prepare(), prepare()];
  const play = async (scene: Scene, index: number) => {
    let alive = new Map<string, number>();
    let ran = 0;
    for (let round = index; round < ROUNDS; round += scenes.length) {
      const kill = `${(round % AGENTS.length) + 1} ${Math.floor(round / AGENTS.length) % 2 ? "after" : "before"}`;
      const next = await playRound(scene, kill);
      // This boot told what the journal knew when the last daemon was dead.
      expectKnown(scene, alive);
      alive = next;
      ran += alive.size;
    }
    expect(diary(scene).cut).toHaveLength(ROUNDS / scenes.length);
    expect(ran).toBeGreaterThan(0);
    // That they never ran is no failure of theirs, and not counted.
    const causes = diary(scene).ends.map(({ kind, cause }) => `${kind} ${cause}`);
    expect([...new Set(causes)]).toEqual(["spawn_failed daemon_stop"]);
    await playLast(scene, alive);
  };
  await Promise.all(scenes.map(play));
}, 120_000);

/** A boot that nobody kills brings all of them up, each once. */
async function playLast(scene: Scene, alive: ReadonlyMap<string, number>): Promise<void> {
  const { said, ended } = boot(scene);
  await waitFor(() => /the daemon is ready/.test(said.log), { what: "readiness", diagnose: () => said.log });
  expectKnown(scene, alive);
  const agentsOf = () =>
    processesOf(scene.home).flatMap(({ pid }) => environOf(pid)["OPENSTARRY_AGENT_ID"] ?? []);
  const wanted = AGENTS.flatMap((id) => [id, id]);
  await waitFor(() => livingRuns(scene).filter((it) => marks(scene).has(it)).length === AGENTS.length, {
    what: "all agents",
    diagnose: agentsOf,
  });
  expect(agentsOf().sort()).toEqual(wanted);
  expect(await runCli(["stop", "--home", scene.home])).toMatchObject({ code: 0 });
  expect((await ended)[0]).toBe(0);
  expect(processesOf(scene.home)).toEqual([]);
}
