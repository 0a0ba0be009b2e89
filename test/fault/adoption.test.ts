// After Docker's TestLiveRestore and TestRestartPolicyWithLiveRestore, and Nomad's TestClientState_Kill,
// TestClientState_KillDuringRestart and TestTaskRunner_Restore_Running.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test } from "vitest";
import type { Agent } from "../../core/index.js";
import { fixtureAgent } from "../helpers/agents.js";
import { afterEndOf, crash, killAgent } from "../helpers/crash.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { operatorOf } from "../helpers/operator.js";
import { processesOfAgent, seeProcess } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const TELLS_ENDS = fileURLToPath(new URL("../fixtures/plugins/tells-ends.mjs", import.meta.url));
/** Ends as $2 says once the gate $1 opens; a run that finds it open stays. */
const ENDS_ONCE = '[ -e "$1" ] && exec sleep 100000; until [ -e "$1" ]; do sleep 0.02; done; eval "$2"';
const SHOOTS = "kill -9 $$";
const AT_ONCE = { min: "1ms", max: "1ms" };

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

async function start(options: Parameters<typeof startDaemon>[0]): Promise<TestDaemon> {
  daemon = await startDaemon(options);
  return daemon;
}

const linesOf = (path: string) => readFileSync(path, "utf8").split("\n").filter(Boolean);

test("died while down: the code is known, afterExit is told once, and the restart policy is applied", async () => {
  const exited = (code: number) => ({ kind: "exited", code }) as const;
  const shot = { kind: "signaled", signal: "SIGKILL" } as const;
  const rounds = [
    { id: "never", policy: "never", how: exited(7), state: "exited", restarts: 0 },
    { id: "well", policy: "on-failure", how: exited(0), state: "exited", restarts: 0 },
    { id: "badly", policy: "on-failure", how: exited(3), state: "running", restarts: 1 },
    { id: "shot", policy: "on-failure", how: shot, state: "running", restarts: 1 },
    { id: "always", policy: "always", how: exited(0), state: "running", restarts: 1 },
  ];
  const it = await start({
    config: { plugins: [TELLS_ENDS] },
    templates: rounds.map(({ id, policy, how }) => ({
      template_id: id,
      command: "sh",
      args: ["-c", ENDS_ONCE, "sh", "{{params.gate}}", how.kind === "exited" ? `exit ${how.code}` : SHOOTS],
      restart: { policy, backoff: AT_ONCE },
      params: { gate: { type: "string" } },
    })),
  });
  const params = { gate: join(it.project, "gate") };
  const before = new Map<string, Agent>();
  for (const { id } of rounds)
    before.set(id, await it.client.agents.create({ agent_id: id, template_id: id, params }));
  await crash(it);
  writeFileSync(params.gate, "");
  const pids = [...before.values()].map(({ pid }) => pid as number);
  await waitFor(() => !pids.some(seeProcess), { what: "the end of all of them" });
  await it.start();
  for (const { id, how, state, restarts } of rounds) {
    const was = before.get(id) as Agent;
    const last_exit = { ...how, cause: "self", run_id: was.run_id };
    expect([id, await afterEndOf(it, was)]).toMatchObject([id, { state, restarts, last_exit }]);
  }
  const told = linesOf(join(it.home, "ends")).sort();
  const all = rounds.map(({ id, how }) => {
    const end = how.kind === "exited" ? how.code : how.signal;
    return `${id} ${before.get(id)?.run_id} ${how.kind} ${end} self`;
  });
  expect(told).toEqual(all.sort());
});

describe("kill after adoption", () => {
  test.each([
    ["kill -9 and start", async (it: TestDaemon) => void (await crash(it).then(() => it.start()))],
    ["restart", async (it: TestDaemon) => void (await it.cli(["restart"]))],
  ])("after %s, an adopted agent that is killed is started again, later and counted", async (_, replace) => {
    const restart = { policy: "on-failure", backoff: AT_ONCE };
    const it = await start({ templates: [{ template_id: "Family", ...fixtureAgent("family.sh"), restart }] });
    const before = await it.client.agents.create({ agent_id: "family", template_id: "Family" });
    // Its child and its grandchild: they must not outlive it.
    const tree = await waitFor(
      () => {
        const all = processesOfAgent(it.home, "family").map(({ pid }) => pid);
        return all.length === 4 && all;
      },
      { what: "the shim and a family of three" },
    );
    await replace(it);
    expect(await it.client.agents.get("family")).toMatchObject({ pid: before.pid, restarts: 0 });
    await killAgent(before);
    const after = await afterEndOf(it, before);
    expect(after).toMatchObject({ state: "running", restarts: 1 });
    expect(after.last_exit).toMatchObject({ signal: "SIGKILL", cause: "self", run_id: before.run_id });
    expect([after.pid, after.run_id]).not.toEqual([before.pid, before.run_id]);
    expect(Date.parse(after.started_at ?? "")).toBeGreaterThan(Date.parse(before.started_at ?? ""));
    expect(Date.parse(after.started_at ?? "")).toBeGreaterThanOrEqual(
      Date.parse(after.last_exit?.ended_at ?? ""),
    );
    expect(tree.filter(seeProcess)).toEqual([]);
  });
});

test("ten kills, same pid: an agent outlives ten daemons, and counts of restarts never fall", async () => {
  const marks = (it: TestDaemon) => join(it.project, "marks");
  const restart = { policy: "always", max_restarts: 1_000_000, backoff: { min: "1ms", max: "100ms" } };
  const it = await start({
    templates: [
      { template_id: "Sleeper", ...fixtureAgent("sleeper.sh") },
      {
        template_id: "Looping",
        command: "sh",
        args: ["-c", 'echo "$OPENSTARRY_RUN_ID" >>"$1"; sleep 0.05; exit 1', "sh", "{{params.marks}}"],
        params: { marks: { type: "string" } },
        restart,
      },
    ],
  });
  const before = await it.client.agents.create({ agent_id: "same", template_id: "Sleeper" });
  const params = { marks: marks(it) };
  await it.client.agents.create({ agent_id: "looping", template_id: "Looping", params });
  let counted = 0;
  for (let round = 0; round < 10; round++) {
    // At another point of its life each time, the first moments after its boot among them.
    await delay(round * round * 2);
    await crash(it);
    await it.start();
    const { pid, run_id, started_at } = before;
    const same = await it.client.agents.get("same");
    expect([round, same]).toMatchObject([round, { pid, run_id, started_at, restarts: 0, state: "running" }]);
    const { restarts } = await it.client.agents.get("looping");
    expect(restarts).toBeGreaterThanOrEqual(counted);
    counted = restarts;
  }
  await it.client.agents.stop("looping");
  const runs = linesOf(marks(it));
  expect(new Set(runs).size).toBe(runs.length);
  // Each restart is a run; and a run that the stop has ended is none. Nothing else is counted.
  const { restarts } = await it.client.agents.get("looping");
  expect(restarts).toBeGreaterThan(10);
  expect([restarts, restarts + 1]).toContain(runs.length);
}, 120_000);

const KILLS = 10;

test(`started exactly once: a daemon is killed at the moment of a start, ${KILLS} times`, async () => {
  const it = await start({
    templates: [
      {
        template_id: "Marker",
        ...fixtureAgent("leaves-mark.sh", "{{params.marks}}"),
        params: { marks: { type: "string" } },
      },
    ],
  });
  const params = { marks: join(it.project, "marks") };
  writeFileSync(params.marks, "");
  const answered = new Map<string, unknown>();
  let known = 0;
  for (let round = 0; round < KILLS; round++) {
    const agent_id = `agent-${round}`;
    const asked = operatorOf(it.home)
      .post("/agents", { agent_id, template_id: "Marker", params })
      .then(({ json }) => answered.set(agent_id, json["run_id"]))
      .catch(() => {});
    // Mostly while it is being started, and at last when that has been answered.
    await delay(round === KILLS - 1 ? 1_000 : round * 5);
    await crash(it);
    await asked;
    await it.start();
    const all = async () => {
      const { items } = await it.client.agents.list();
      const marked = linesOf(params.marks).map((line) => line.split(" ")[0]);
      const isOver = items.every(({ state, run_id }) => state === "running" && marked.includes(run_id));
      return isOver && { items, marked };
    };
    const { items, marked } = await waitFor(all, {
      what: `all to run in round ${round}`,
      timeoutMs: 15_000,
      diagnose: async () => [await it.client.agents.list(), linesOf(params.marks)],
    });
    // One mark for each agent: that of the run that it is in now.
    expect(marked.sort()).toEqual(items.map(({ run_id }) => run_id).sort());
    expect(items.every(({ restarts }) => restarts === 0)).toBe(true);
    known = items.length;
  }
  const { items } = await it.client.agents.list();
  for (const [agent_id, run_id] of answered)
    expect(items.find((agent) => agent.agent_id === agent_id)).toMatchObject({ run_id });
  // Some were killed in time: otherwise this has tried nothing.
  expect(answered.size).toBeGreaterThan(0);
  expect(answered.size).toBeLessThan(KILLS);
  expect(known).toBeGreaterThanOrEqual(answered.size);
}, 120_000);
