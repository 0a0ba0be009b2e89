import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openCgroups } from "../../plugins/spawner-process/tree/cgroup.js";
import { fixtureAgent, printedPid } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { allProcesses, type SeenProcess, seeProcess } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const KINDS = ["plain", "setsid", "daemon", "hides", "deaf", "stopped", "orphan", "forks"] as const;
type Kind = (typeof KINDS)[number];

const text = { type: "string" };
const templates = [
  {
    template_id: "Kin",
    ...fixtureAgent("kin.sh", "{{params.kind}}", "{{params.stay}}", "{{params.go}}"),
    params: { kind: text, stay: text, go: text },
    stop: { grace: "300ms" },
    restart: { policy: "never" },
  },
];

const probe = openCgroups(`containment-${process.pid}`);
probe?.release();
if (!probe) console.warn("no cgroup v2 can be written here: containment is tried without cgroups only");

let count = 0;
/** Digits that no other process of this machine has on its command line. */
const newStay = () => `1000${process.pid}${String(count++).padStart(3, "0")}`;

/** Whoever has the number among its words: an independent look, by nothing that the daemon goes by. */
function kinOf(stay: string): SeenProcess[] {
  return allProcesses().filter(({ command }) => command.split(/[ .]/).includes(stay));
}

interface Family {
  id: string;
  pid: number;
  stay: string;
}

async function family(daemon: TestDaemon, kind: Kind): Promise<Family> {
  const stay = newStay();
  const go = join(daemon.project, `go-${stay}`);
  const id = `${kind}-${count}`;
  const params = { kind, stay, go };
  const { pid = 0, containment } = await daemon.client.agents.create({
    agent_id: id,
    template_id: "Kin",
    params,
  });
  await printedPid(daemon, id, "agent");
  const there = () => isThere(kind, stay, pid);
  await waitFor(there, { what: `the kin of ${id}`, diagnose: () => kinOf(stay) });
  if (kind === "hides") {
    const [hider] = hiders(stay);
    if (containment === "best_effort") await remembered(daemon, hider?.pid ?? 0);
    writeFileSync(go, "");
    const hidden = () => seeProcess(hider?.pid ?? 0)?.command === `sleep ${stay}`;
    await waitFor(hidden, { what: "the hiding" });
  }
  return { id, pid, stay };
}

function isThere(kind: Kind, stay: string, pid: number): boolean {
  const kin = kinOf(stay).filter((it) => it.pid !== pid);
  const sleepers = kin.filter(({ command }) => command.startsWith("sleep "));
  if (kind === "hides") return hiders(stay).length === 1;
  if (kind === "stopped") return kin.some(({ state }) => state === "T");
  if (kind === "forks") return kin.some(({ command }) => command.startsWith("sh -c while"));
  return sleepers.length === (kind === "daemon" ? 2 : 1);
}

/** Those that have left their session and their parent, and have not changed their clothes yet. */
function hiders(stay: string): SeenProcess[] {
  const kin = kinOf(stay);
  const isChild = ({ ppid }: SeenProcess) => kin.some(({ pid }) => pid === ppid);
  return kin.filter((it) => it.session === it.pid && it.command.includes("exec env -i") && !isChild(it));
}

/** A daemon without cgroups has seen the process as one of a run, and written that down. */
async function remembered(daemon: TestDaemon, pid: number): Promise<void> {
  const file = join(daemon.home, "remembered.json");
  await waitFor(() => existsSync(file) && readFileSync(file, "utf8").includes(`[${pid},`), {
    timeoutMs: 30_000,
    what: `${pid} to be remembered`,
  });
}

const expectNone = (stay: string) => expect(kinOf(stay)).toEqual([]);

async function startWith(containment: string): Promise<TestDaemon> {
  const plugins = containment === "full" ? [] : [["spawner-process", { cgroups: false }]];
  return startDaemon({ config: { plugins }, templates });
}

/** What a failed test has left: only that has these numbers on its command lines. */
function killAll() {
  for (const { pid, command } of allProcesses()) {
    if (command.split(/[ .]/).some((word) => word.startsWith(`1000${process.pid}`))) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It ended meanwhile.
      }
    }
  }
}

describe.each(probe ? ["full", "best_effort"] : ["best_effort"])("containment %s", (containment) => {
  let daemon: TestDaemon;
  beforeAll(async () => {
    daemon = await startWith(containment);
  });
  afterAll(async () => {
    await daemon?.stop();
    killAll();
  });

  test.each(KINDS)("of kin that %s nothing is left by DELETE, nor by a crash of the agent", async (kind) => {
    const deleted = await family(daemon, kind);
    const crashed = await family(daemon, kind);
    expect(await daemon.client.agents.get(deleted.id)).toMatchObject({ state: "running", containment });
    await daemon.client.agents.remove(deleted.id);
    expectNone(deleted.stay);
    process.kill(crashed.pid, "SIGKILL");
    const { last_exit } = await daemon.client.agents.wait(crashed.id, { for: "ended", timeoutMs: 20_000 });
    expect(last_exit).toMatchObject({ kind: "signaled", signal: "SIGKILL", cause: "self" });
    expectNone(crashed.stay);
    await daemon.client.agents.remove(crashed.id);
  });

  test("what was seen of a run is known to the next daemon too, whether the agent lives or not", async () => {
    const [living, dead] = [await family(daemon, "hides"), await family(daemon, "hides")];
    process.kill(daemon.pid() as number, "SIGKILL");
    await waitFor(() => daemon.pid() === undefined, { what: "the lock to be free" });
    process.kill(dead.pid, "SIGKILL");
    expect(kinOf(dead.stay)).not.toEqual([]);
    await daemon.start();
    expect(await daemon.client.agents.get(living.id)).toMatchObject({ state: "running", pid: living.pid });
    expect((await daemon.client.agents.get(dead.id)).state).toBe("exited");
    expectNone(dead.stay);
    await daemon.client.agents.remove(living.id);
    expectNone(living.stay);
  });
});
