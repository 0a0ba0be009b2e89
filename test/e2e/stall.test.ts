import { afterEach, expect, test } from "vitest";
import { fixtureAgent, printedPid } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { processesOfAgent, seeProcess } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

/** Longer than any interval at which the daemon looks by itself. */
const STALL_MS = 6_000;
/** After it. What is promised is a look at once, and the next within 5 s. */
const patience = { timeoutMs: 25_000 };

const restart = { max_restarts: 5, backoff: { min: "1ms", max: "1ms" } };
/** Forks a child in a session of its own when told to. */
const FORKS = `trap 'setsid sleep 100000 & echo "child $!"' USR1
echo "agent $$"
while :; do sleep 0.05; done`;
const templates = [
  {
    template_id: "Ends",
    command: "sh",
    args: ["-c", 'trap "exit 7" USR1; echo "agent $$"; while :; do sleep 0.05; done'],
  },
  { template_id: "Forks", command: "sh", args: ["-c", FORKS] },
  { template_id: "Family", ...fixtureAgent("family.sh") },
].map((template) => ({ ...template, restart, stop: { grace: "300ms" } }));

let daemon: TestDaemon;
afterEach(async () => {
  const pid = daemon.pid();
  if (pid !== undefined) process.kill(pid, "SIGCONT");
  await daemon.stop();
});

async function create(agent_id: string, template_id: string): Promise<number> {
  const { pid = 0 } = await daemon.client.agents.create({ agent_id, template_id });
  await printedPid(daemon, agent_id, "agent");
  return pid;
}

const shimOf = (pid: number) => seeProcess(pid)?.ppid ?? 0;
const gone = (pid: number) => waitFor(() => seeProcess(pid) === undefined, { what: `the end of ${pid}` });
/** The agent's next run. */
function successor(id: string, pid: number) {
  return waitFor(
    async () => {
      const agent = await daemon.client.agents.get(id);
      return agent.state === "running" && agent.pid !== pid && agent;
    },
    { ...patience, what: `the next run of ${id}`, diagnose: () => daemon.client.agents.get(id) },
  );
}

test.each([[true], [false]])(
  "a daemon that was stopped for a while catches up (cgroups: %s)",
  async (cgroups) => {
    daemon = await startDaemon({ config: { plugins: [["spawner-process", { cgroups }]] }, templates });
    const ends = await create("ends", "Ends");
    const killed = await create("killed", "Family");
    const forks = await create("forks", "Forks");
    const family = await Promise.all(
      ["child", "grandchild"].map((word) => printedPid(daemon, "killed", word)),
    );
    const daemonPid = daemon.pid() as number;
    process.kill(daemonPid, "SIGSTOP");
    await waitFor(() => seeProcess(daemonPid)?.state === "T", { what: "the daemon to stand still" });
    process.kill(ends, "SIGUSR1");
    process.kill(killed, "SIGKILL");
    process.kill(forks, "SIGUSR1");
    await Promise.all([gone(ends), gone(killed)]);
    await waitFor(
      () => processesOfAgent(daemon.home, "forks").some(({ command }) => command === "sleep 100000"),
      {
        what: "the fork",
      },
    );
    expect(family.map((pid) => seeProcess(pid)?.pid)).toEqual(family);
    // The stall itself is what is tried.
    await new Promise((resolve) => setTimeout(resolve, STALL_MS));
    process.kill(daemonPid, "SIGCONT");

    expect(await successor("ends", ends)).toMatchObject({
      restarts: 1,
      last_exit: { kind: "exited", code: 7, cause: "self", success: false },
    });
    expect(await successor("killed", killed)).toMatchObject({
      restarts: 1,
      last_exit: { kind: "signaled", signal: "SIGKILL", cause: "self" },
    });
    for (const pid of family) expect(seeProcess(pid)).toBeUndefined();
    expect(await daemon.client.agents.get("forks")).toMatchObject({
      state: "running",
      pid: forks,
      restarts: 0,
    });
    await daemon.client.agents.remove("forks");
    expect(processesOfAgent(daemon.home, "forks")).toEqual([]);
    for (const id of ["ends", "killed"]) {
      const { items } = await daemon.client.agents.events(id);
      expect(items.filter(({ type }) => type === "agent.exited")).toHaveLength(1);
    }
  },
  60_000,
);

test("an end that a stopped shim tells nobody of is seen all the same, and how it was", async () => {
  daemon = await startDaemon({ templates });
  const pid = await create("ends", "Ends");
  const shim = shimOf(pid);
  process.kill(shim, "SIGSTOP");
  await waitFor(() => seeProcess(shim)?.state === "T", { what: "the shim to stand still" });
  process.kill(pid, "SIGUSR1");
  expect((await successor("ends", pid)).last_exit).toMatchObject({ kind: "exited", code: 7 });
}, 40_000);

test("without its shim an agent lives on; its end is nobody's to know, and counts as a failure", async () => {
  daemon = await startDaemon({ templates });
  const pid = await create("ends", "Ends");
  const shim = shimOf(pid);
  process.kill(shim, "SIGKILL");
  await gone(shim);
  expect(await daemon.client.agents.get("ends")).toMatchObject({ state: "running", pid });
  process.kill(pid, "SIGUSR1");
  const next = await successor("ends", pid);
  expect(next).toMatchObject({ restarts: 1, last_exit: { kind: "lost", cause: "self", success: false } });
}, 40_000);

test("so it does when the daemon was dead as well, whether it ends before the next one or after", async () => {
  daemon = await startDaemon({ templates });
  const before = await create("before", "Ends");
  const after = await create("after", "Ends");
  process.kill(daemon.pid() as number, "SIGKILL");
  await waitFor(() => daemon.pid() === undefined, { what: "the lock to be free" });
  const shims = [before, after].map(shimOf);
  for (const shim of shims) process.kill(shim, "SIGKILL");
  await Promise.all(shims.map(gone));
  process.kill(before, "SIGUSR1");
  await gone(before);
  await daemon.start();
  expect(await daemon.client.agents.get("after")).toMatchObject({
    state: "running",
    pid: after,
    restarts: 0,
  });
  const lost = { restarts: 1, last_exit: { kind: "lost", cause: "self", success: false } };
  expect(await successor("before", before)).toMatchObject(lost);
  process.kill(after, "SIGUSR1");
  expect(await successor("after", after)).toMatchObject(lost);
}, 60_000);
