import { expect, test } from "vitest";
import { agentColumns, describeEnd, describeExit, exitCodeOfRun, since } from "../../../bin/agent-view.js";
import { growTree, isWanted } from "../../../bin/commands/list.js";
import { table } from "../../../bin/table.js";
import type { Agent, Exit, ExitStatus } from "../../../core/contracts/agent.js";
import { createTestTerminal } from "../../helpers/test-terminal.js";

const NOW = Date.parse("2026-01-01T01:00:00.000Z");

function agent(agent_id: string, fields: Partial<Agent> = {}): Agent {
  return {
    agent_id,
    template_id: "Worker_v1",
    template_revision: "1",
    state: "running",
    desired: "running",
    health: "unknown",
    spawner: "process",
    restarts: 0,
    created_at: "2026-01-01T00:00:00.000Z",
    labels: {},
    ...fields,
  };
}

function exit(status: ExitStatus): Exit {
  return { ...status, cause: "self", actor: "agent:a", reason: "", success: false, ended_at: "" };
}

test.each<[ExitStatus, number, string]>([
  [{ kind: "exited", code: 0 }, 0, "exited with code 0"],
  [{ kind: "exited", code: 7 }, 7, "exited with code 7"],
  [{ kind: "signaled", signal: "SIGKILL" }, 137, "killed by SIGKILL"],
  [{ kind: "signaled", signal: "SIGTERM", raw_status: 143 }, 143, "killed by SIGTERM"],
  [{ kind: "signaled", signal: "SIGRTMIN" }, 1, "killed by SIGRTMIN"],
  [{ kind: "lost" }, 1, "ended (exit status unknown)"],
  [
    { kind: "spawn_failed", error: { code: "cwd_invalid", detail: "no folder" } },
    1,
    "could not be started: no folder",
  ],
])("%o exits with %i: %s", (status, code, words) => {
  expect(exitCodeOfRun(exit(status))).toBe(code);
  expect(describeExit(status)).toBe(words);
});

test("the end of a run names its actor, except when the kernel killed it", () => {
  const ended = { ...exit({ kind: "exited", code: 7 }), reason: "it was told to", ended_at: "12:00" };
  expect(describeEnd(ended)).toBe("exited with code 7, 12:00: it was told to (agent:a)");
  expect(describeEnd({ ...ended, cause: "oom" })).toBe("exited with code 7, 12:00: it was told to");
});

test("an agent that never ran has exit code 1", () => {
  expect(exitCodeOfRun(undefined)).toBe(1);
});

test("an age is never negative, and is left out if unknown", () => {
  expect(since("2026-01-01T00:58:57.900Z", NOW)).toBe("1m 2s");
  expect(since("2026-01-01T02:00:00.000Z", NOW)).toBe("0s");
  expect(since(undefined, NOW)).toBeUndefined();
  expect(since("yesterday", NOW)).toBeUndefined();
});

test("the list shows the most useful fact besides the state", () => {
  const { terminal } = createTestTerminal();
  const rows = [
    agent("master", {
      pid: 42,
      started_at: "2026-01-01T00:00:00.000Z",
      health: "healthy",
      status: "planning",
      progress: 0.25,
      resources: {
        cpu_percent: 12.34,
        cpu_ms: 5_000,
        memory_bytes: 50 * 2 ** 20,
        processes: 2,
        sampled_at: "2026-01-01T00:59:59.000Z",
      },
    }),
    agent("loop", {
      state: "backoff",
      restarts: 3,
      reason: "exited with code 1",
      next_start_at: "2026-01-01T01:00:04.000Z",
    }),
    agent("done", { state: "exited", last_exit: exit({ kind: "exited", code: 0 }) }),
  ];
  expect(table(terminal, rows, agentColumns(NOW))).toEqual([
    "AGENT   STATE    HEALTH   PID    CPU    MEM  UP  RESTARTS  TEMPLATE   ABOUT",
    "master  running  healthy   42  12.3%  50MiB  1h         0  Worker_v1  25% planning",
    "loop    backoff  -          -      -      -   -         3  Worker_v1  exited with code 1; restarts in 4s",
    "done    exited   -          -      -      -   -         0  Worker_v1  exited with code 0",
  ]);
});

test("the tree shows children below parents, and also agents with a missing parent or in a cycle", () => {
  const agents = [
    agent("b", { parent_id: "a" }),
    agent("a"),
    agent("c", { parent_id: "b" }),
    agent("d", { parent_id: "a" }),
    agent("orphan", { parent_id: "gone" }),
    agent("x", { parent_id: "y" }),
    agent("y", { parent_id: "x" }),
  ];
  const lines = growTree(agents).map(({ agent: { agent_id }, branch }) => branch + agent_id);
  expect(lines).toEqual(["a", "├─ b", "│  └─ c", "└─ d", "orphan", "x", "└─ y"]);
});

test("an agent matches all filters, and any of several states", () => {
  const worker = agent("w", { state: "failed", labels: { team: "research", tier: "1" } });
  expect(isWanted(worker, {})).toBe(true);
  expect(isWanted(worker, { state: ["running", "failed"], template: "Worker_v1" })).toBe(true);
  expect(isWanted(worker, { state: ["running"] })).toBe(false);
  expect(isWanted(worker, { template: "Other" })).toBe(false);
  expect(isWanted(worker, { label: { team: "research", tier: "2" } })).toBe(false);
});
