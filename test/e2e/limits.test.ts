import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { getPriority } from "node:os";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lockHolder } from "../../bin/daemon/lock.js";
import { openControllers } from "../../plugins/spawner-process/limits/controllers.js";
import { openCgroups } from "../../plugins/spawner-process/tree/cgroup.js";
import { fixtureAgent, printedPid } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { processesOfAgent } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const PATIENCE_MS = 20_000;
const SAMPLES = ["sampler-pidusage", { interval: "250ms" }];
const POLICY = ["policy-resources", { cpu_window: "1s" }];

const never = { policy: "never" };
const stop = { grace: "500ms" };
const template = (template_id: string, agent: object, resources: object, more: object = {}) => ({
  template_id,
  ...agent,
  resources,
  restart: never,
  stop,
  ...more,
});
const templates = [
  template("Leaks", fixtureAgent("takes-memory.mjs", "2000"), { memory_max: "200MiB" }),
  template("LeaksInChildren", fixtureAgent("takes-memory.mjs", "400", "3"), { memory_max: "400MiB" }),
  template(
    "LeaksForEver",
    fixtureAgent("takes-memory.mjs", "2000"),
    { memory_max: "150MiB" },
    {
      restart: { max_restarts: 2, backoff: { min: "10ms", max: "10ms" } },
    },
  ),
  template(
    "LeaksAndStops",
    fixtureAgent("takes-memory.mjs", "2000"),
    { memory_max: "150MiB", on_exceed: "stop" },
    {
      restart: { policy: "always", backoff: { min: "50ms" } },
    },
  ),
  template("LeaksUnderWatch", fixtureAgent("takes-memory.mjs", "300"), {
    memory_max: "200MiB",
    on_exceed: "warn",
  }),
  template("Burns", fixtureAgent("burns-cpu.sh"), {}),
  template("BurnsLess", fixtureAgent("burns-cpu.sh"), { cpu_max: "5%" }),
  template("BurnsToTheEnd", fixtureAgent("burns-cpu.sh"), { cpu_max: "5%", on_exceed: { cpu_max: "stop" } }),
  template("Forks", fixtureAgent("forks.sh", "500"), { pids_max: 40 }),
  template("ForksToTheEnd", fixtureAgent("forks.sh", "500"), { pids_max: 40, on_exceed: "stop" }),
  template("Opens", fixtureAgent("opens-files.mjs", "500"), { open_files_max: 100 }),
  template("RunsLong", fixtureAgent("sleeper.sh", "/dev/null"), { run_time_max: "1s" }),
  template("Idles", fixtureAgent("sleeper.sh", "/dev/null"), { idle_max: "2s" }),
  template("Prints", fixtureAgent("prints.mjs"), { idle_max: "2s" }),
  template("Modest", fixtureAgent("takes-memory.mjs", "60"), {
    memory_max: "500MiB",
    cpu_max: "300%",
    pids_max: 60,
    open_files_max: 200,
    run_time_max: "1h",
    idle_max: "1h",
  }),
];

const ended = (daemon: TestDaemon, agentId: string) =>
  daemon.client.agents.wait(agentId, { for: "ended", timeoutMs: PATIENCE_MS });
const create = (daemon: TestDaemon, template_id: string, agent_id = template_id) =>
  daemon.client.agents.create({ agent_id, template_id });
const limitEvents = async ({ client }: TestDaemon, agentId: string) =>
  (await client.agents.events(agentId)).items.filter(({ type }) => type === "agent.limit");

/** CPU time of one process, in clock ticks. */
function ticksOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

/** How much of one core a process gets, over about two seconds. */
async function shareOf(pid: number): Promise<number> {
  const [ticks, atMs] = [ticksOf(pid), performance.now()];
  await waitFor(() => performance.now() - atMs > 2_000, { what: "two seconds" });
  // proc(5): a hundred ticks a second.
  return (ticksOf(pid) - ticks) / ((performance.now() - atMs) / 10);
}

/** How often the kernel made the run wait for its next period. */
function throttledPeriods(runId = ""): number {
  const stat = readFileSync(`${cpuFolder(daemon.home)}/${runId}/cpu.stat`, "utf8");
  return Number(/nr_throttled (\d+)/.exec(stat)?.[1]);
}

const groups = openCgroups(`limits-${process.pid}`);
const controllers = openControllers(`limits-${process.pid}`, groups);
groups?.release();
/** Where a daemon's groups for CPU are. */
function cpuFolder(home: string): string {
  const tag = createHash("sha256").update(home).digest("hex").slice(0, 12);
  return String(controllers.get("cpu")?.folder).replace(/openstarry-.*/, `openstarry-${tag}`);
}
if (controllers.size < 3)
  console.log(
    `limits by cgroups are not tried: this system offers only ${[...controllers.keys()].join() || "none"}`,
  );

let daemon: TestDaemon;

/** What holds however the limits are held. */
function common(name: "kernel" | "polling") {
  test("a leaking agent is ended, and what for is told", async () => {
    const agent = await create(daemon, "Leaks");
    expect(agent.limits).toEqual({
      memory_max: { value: 200 * 2 ** 20, held_by: name, on_exceed: "restart" },
    });
    const { state, last_exit } = await ended(daemon, "Leaks");
    expect(state).toBe("failed");
    expect(last_exit).toMatchObject({ cause: name === "kernel" ? "oom" : "policy", success: false });
    expect(last_exit?.reason).toMatch(/memory.*memory_max 200MiB/);
    if (name === "polling") expect(last_exit?.actor).toBe("plugin:policy-resources");
    expect(processesOfAgent(daemon.home, "Leaks")).toEqual([]);
  });

  test("a restart for its memory is a failure: it runs into the restart intensity", async () => {
    await create(daemon, "LeaksForEver");
    const { state, restarts, reason } = await ended(daemon, "LeaksForEver");
    expect([state, restarts]).toEqual(["failed", 2]);
    expect(reason).toMatch(/memory_max.*crash loop/);
  });

  test("where it is to be stopped, it is not started again, whatever its restart rules say", async () => {
    await create(daemon, "LeaksAndStops");
    const { state, desired, restarts, reason } = await ended(daemon, "LeaksAndStops");
    expect([state, desired]).toEqual(["stopped", "stopped"]);
    expect(restarts).toBeLessThanOrEqual(1);
    expect(reason).toMatch(/memory_max 150MiB/);
  });

  test("only to be warned of, it goes on, and it is told once", async () => {
    const { run_id, limits } = await create(daemon, "LeaksUnderWatch");
    // A kernel's only means would be to kill.
    expect(limits?.memory_max).toMatchObject({ held_by: "polling", on_exceed: "warn" });
    await waitFor(async () => (await limitEvents(daemon, "LeaksUnderWatch")).length, {
      timeoutMs: PATIENCE_MS,
      what: "a warning",
    });
    await samplesOf("LeaksUnderWatch", 4);
    const [event, ...more] = await limitEvents(daemon, "LeaksUnderWatch");
    expect(more).toEqual([]);
    expect(event?.data).toMatchObject({ limit: "memory_max", action: "warn", held_by: "polling" });
    expect((event?.data as { measured?: number } | undefined)?.measured).toBeGreaterThan(200 * 2 ** 20);
    expect(await daemon.client.agents.get("LeaksUnderWatch")).toMatchObject({ state: "running", run_id });
    await daemon.client.agents.remove("LeaksUnderWatch");
  });

  test("no more files are opened than may be", async () => {
    const { limits } = await create(daemon, "Opens");
    expect(limits?.open_files_max).toEqual({ value: 100, held_by: "kernel" });
    const opened = await printedPid(daemon, "Opens", "opened");
    expect(opened).toBeGreaterThan(40);
    expect(opened).toBeLessThan(100);
    const { items } = await daemon.client.agents.logs("Opens");
    expect(items.map(({ text }) => text)).toContain("then EMFILE");
    await daemon.client.agents.remove("Opens");
  });

  test("who runs for too long is stopped", async () => {
    const begun = performance.now();
    await create(daemon, "RunsLong");
    const { state, last_exit } = await ended(daemon, "RunsLong");
    expect(performance.now() - begun).toBeGreaterThan(900);
    expect(state).toBe("stopped");
    expect(last_exit).toMatchObject({ cause: "policy", actor: "plugin:policy-resources" });
    expect(last_exit?.reason).toMatch(/^running for 1s, run_time_max 1s/);
  });

  test("who does nothing is stopped; who prints, or sends a heartbeat, is not", async () => {
    const busy = await Promise.all([create(daemon, "Prints"), create(daemon, "Idles", "beats")]);
    const token = readFileSync(`${daemon.home}/token`, "utf8");
    const { url } = JSON.parse(readFileSync(`${daemon.home}/daemon.json`, "utf8"));
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
    const beating = setInterval(
      () => void fetch(`${url}/agents/beats/heartbeat`, { method: "POST", headers, body: "{}" }),
      500,
    );
    await create(daemon, "Idles");
    const { state, last_exit } = await ended(daemon, "Idles");
    expect(state).toBe("stopped");
    expect(last_exit?.reason).toMatch(/^idle for .*, idle_max 2s/);
    await create(daemon, "Idles", "idles-later");
    await ended(daemon, "idles-later");
    clearInterval(beating);
    for (const { agent_id, run_id } of busy) {
      expect(await daemon.client.agents.get(agent_id)).toMatchObject({ state: "running", run_id });
      await daemon.client.agents.remove(agent_id);
    }
  });

  test("who stays within its limits is left alone", async () => {
    const { run_id } = await create(daemon, "Modest");
    await printedPid(daemon, "Modest", "holds");
    await samplesOf("Modest", 8);
    expect(await limitEvents(daemon, "Modest")).toEqual([]);
    const agent = await daemon.client.agents.get("Modest");
    expect(agent).toMatchObject({ state: "running", run_id, restarts: 0 });
    expect(agent.throttle).toBeUndefined();
    await daemon.client.agents.remove("Modest");
  });
}

/** Waits until it was measured so many times more. */
async function samplesOf(agentId: string, count: number): Promise<void> {
  const seen = new Set<string>();
  await waitFor(
    async () => {
      seen.add((await daemon.client.agents.get(agentId)).resources?.sampled_at ?? "");
      return seen.size > count;
    },
    { timeoutMs: PATIENCE_MS, what: `${count} samples of ${agentId}` },
  );
}

describe.runIf(controllers.size === 3)("held by the kernel", () => {
  beforeAll(async () => {
    daemon = await startDaemon({ config: { plugins: [SAMPLES, POLICY] }, templates });
  });
  afterAll(() => daemon.stop());
  common("kernel");

  test("memory that its children hold counts; when one of them is killed, the agent goes on", async () => {
    const { run_id } = await create(daemon, "LeaksInChildren");
    const event = await waitFor(async () => (await limitEvents(daemon, "LeaksInChildren"))[0], {
      timeoutMs: PATIENCE_MS,
      what: "a child to be killed",
    });
    expect(event.data).toMatchObject({
      limit: "memory_max",
      action: "kill",
      actor: "daemon",
      held_by: "kernel",
    });
    expect((event.data as { reason: string }).reason).toMatch(
      /the kernel killed \d of its processes for want of memory/,
    );
    // Version 2 kills the whole group.
    if (controllers.get("memory")?.version === 1)
      expect(await daemon.client.agents.get("LeaksInChildren")).toMatchObject({ state: "running", run_id });
    await daemon.client.agents.remove("LeaksInChildren");
  });

  test("a CPU burner gets no more than it may", async () => {
    const [free, less] = await Promise.all([create(daemon, "Burns"), create(daemon, "BurnsLess")]);
    expect(less.limits?.cpu_max).toEqual({ value: 5, held_by: "kernel", on_exceed: "throttle" });
    const [all, part] = await Promise.all([shareOf(free.pid ?? 0), shareOf(less.pid ?? 0)]);
    console.log(`cpu_max 5%: ${part.toFixed(2)} of a core; without it ${all.toFixed(2)}`);
    // However busy the machine is, it cannot be more.
    expect(part).toBeLessThan(0.1);
    expect(throttledPeriods(less.run_id)).toBeGreaterThan(0);
    await Promise.all(["Burns", "BurnsLess"].map((id) => daemon.client.agents.remove(id)));
    expect(existsSync(`${cpuFolder(daemon.home)}/${less.run_id}`)).toBe(false);
  });

  test("a fork bomb gets no further than pids_max, and the agent goes on", async () => {
    const { run_id } = await create(daemon, "Forks");
    let most = 0;
    const event = await waitFor(
      async () => {
        most = Math.max(most, processesOfAgent(daemon.home, "Forks").length);
        return (await limitEvents(daemon, "Forks"))[0];
      },
      { timeoutMs: PATIENCE_MS, what: "a fork to be refused" },
    );
    expect(event.data).toMatchObject({ limit: "pids_max", action: "refuse", value: 40, held_by: "kernel" });
    // The shim is none of it.
    expect(most).toBeGreaterThan(20);
    expect(most).toBeLessThanOrEqual(41);
    expect(await daemon.client.agents.get("Forks")).toMatchObject({ state: "running", run_id });
    await daemon.client.agents.remove("Forks");
    expect(processesOfAgent(daemon.home, "Forks")).toEqual([]);
  });

  test("a fork bomb is stopped where that was asked for", async () => {
    await create(daemon, "ForksToTheEnd");
    const { state, last_exit } = await ended(daemon, "ForksToTheEnd");
    expect([state, last_exit?.cause, last_exit?.actor]).toEqual([
      "stopped",
      "policy",
      "plugin:policy-resources",
    ]);
    expect(processesOfAgent(daemon.home, "ForksToTheEnd")).toEqual([]);
  });

  test("limits hold over the daemon's death, are told afterwards, and an end meanwhile is known", async () => {
    const { pid = 0, run_id, limits } = await create(daemon, "BurnsLess", "goes-on");
    const leak = fixtureAgent("takes-memory.mjs", "2000");
    const late = `until [ -e ${daemon.project}/gate ]; do sleep 0.05; done; exec ${leak.command} ${leak.args.join(" ")}`;
    await daemon.client.templates.put("LeaksLater", {
      template_id: "LeaksLater",
      command: "/bin/sh",
      args: ["-c", late],
      resources: { memory_max: "150MiB" },
      restart: { policy: "never" },
    });
    await create(daemon, "LeaksLater");
    process.kill(daemon.pid() ?? 0, "SIGKILL");
    await waitFor(() => lockHolder(daemon.home) === undefined, { what: "the daemon's end" });
    const before = throttledPeriods(run_id);
    writeFileSync(`${daemon.project}/gate`, "");
    await waitFor(() => processesOfAgent(daemon.home, "LeaksLater").length === 0, {
      timeoutMs: PATIENCE_MS,
      what: "the kernel to end it",
    });
    await daemon.start();
    expect(await daemon.client.agents.get("goes-on")).toMatchObject({
      state: "running",
      run_id,
      pid,
      limits,
    });
    expect(await shareOf(pid)).toBeLessThan(0.1);
    expect(throttledPeriods(run_id)).toBeGreaterThan(before);
    expect((await ended(daemon, "LeaksLater")).last_exit).toMatchObject({ cause: "oom", signal: "SIGKILL" });
    for (const id of ["goes-on", "LeaksLater"]) await daemon.client.agents.remove(id);
    expect(existsSync(`${cpuFolder(daemon.home)}/${run_id}`)).toBe(false);
  });
});

describe("held by polling", () => {
  beforeAll(async () => {
    const plugins = [SAMPLES, POLICY, ["spawner-process", { cgroups: false }]];
    daemon = await startDaemon({ config: { plugins }, templates });
  });
  afterAll(() => daemon.stop());
  common("polling");

  test("memory that its children hold counts", async () => {
    await create(daemon, "LeaksInChildren");
    const { last_exit } = await ended(daemon, "LeaksInChildren");
    expect(last_exit).toMatchObject({ cause: "policy", actor: "plugin:policy-resources" });
    expect(last_exit?.reason).toMatch(/^memory .* over memory_max 400MiB/);
    expect(processesOfAgent(daemon.home, "LeaksInChildren")).toEqual([]);
  });

  test("a CPU burner gives way to others, which holds over the daemon's death", async () => {
    const { pid = 0, run_id } = await create(daemon, "BurnsLess");
    const slow = await waitFor(async () => (await daemon.client.agents.get("BurnsLess")).throttle, {
      timeoutMs: PATIENCE_MS,
      what: "it to be slowed down",
    });
    expect(slow).toMatchObject({ percent: 5, by: "nice", actor: "plugin:policy-resources" });
    expect(slow.reason).toMatch(/^CPU \d+% over cpu_max 5%, on average over 1s/);
    expect(getPriority(pid)).toBe(19);
    process.kill(daemon.pid() ?? 0, "SIGKILL");
    await waitFor(() => lockHolder(daemon.home) === undefined, { what: "the daemon's end" });
    await daemon.start();
    const adopted = await daemon.client.agents.get("BurnsLess");
    expect(adopted).toMatchObject({ state: "running", run_id, throttle: slow });
    expect(getPriority(pid)).toBe(19);
    await daemon.client.agents.remove("BurnsLess");
  });

  test("a CPU burner is stopped where that was asked for", async () => {
    await create(daemon, "BurnsToTheEnd");
    const { state, last_exit } = await ended(daemon, "BurnsToTheEnd");
    expect([state, last_exit?.cause]).toEqual(["stopped", "policy"]);
  });

  test("too many processes are told, or the end", async () => {
    await create(daemon, "Forks");
    const event = await waitFor(async () => (await limitEvents(daemon, "Forks"))[0], {
      timeoutMs: PATIENCE_MS,
      what: "a warning",
    });
    expect(event.data).toMatchObject({ limit: "pids_max", action: "warn", held_by: "polling" });
    await daemon.client.agents.remove("Forks");
    await create(daemon, "ForksToTheEnd");
    const { last_exit } = await ended(daemon, "ForksToTheEnd");
    expect(last_exit).toMatchObject({ cause: "policy", actor: "plugin:policy-resources" });
    expect(processesOfAgent(daemon.home, "ForksToTheEnd")).toEqual([]);
  });
});
