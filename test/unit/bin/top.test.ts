import { describe, expect, test } from "vitest";
import { formatPercent } from "../../../bin/agent-view.js";
import { linesOf, sortByUse } from "../../../bin/commands/top.js";
import type { Agent } from "../../../core/contracts/agent.js";
import { createTestTerminal } from "../../helpers/test-terminal.js";

function agent(agent_id: string, cpu_percent?: number, memory_bytes = 0, more: Partial<Agent> = {}): Agent {
  const sampled_at = "2026-01-01T00:00:00.000Z";
  const resources = { cpu_percent: cpu_percent ?? 0, cpu_ms: 61_000, memory_bytes, processes: 2, sampled_at };
  return {
    agent_id,
    template_id: "Worker_v1",
    template_revision: "1",
    state: "running",
    desired: "running",
    health: "unknown",
    pid: 4711,
    spawner: "process",
    restarts: 0,
    created_at: "2026-01-01T00:00:00.000Z",
    labels: {},
    ...(cpu_percent === undefined ? {} : { resources }),
    ...more,
  };
}

const idsOf = (agents: readonly Agent[]) => agents.map(({ agent_id }) => agent_id);

describe("top", () => {
  const agents = [agent("idle", 0, 300), agent("new"), agent("busy", 150, 100), agent("also-idle", 0, 200)];

  test("sorts by usage, highest first, and agents without samples last", () => {
    expect(idsOf(sortByUse(agents, "cpu"))).toEqual(["busy", "also-idle", "idle", "new"]);
    expect(idsOf(sortByUse(agents, "memory"))).toEqual(["idle", "also-idle", "busy", "new"]);
  });

  test("shows the totals, and the usage of each agent", () => {
    const { terminal } = createTestTerminal();
    const [summary, empty, header, first, , , last] = linesOf(terminal, agents, "cpu");
    expect(summary).toBe("4 running agents, CPU 150% of one core, memory 600B, 6 processes");
    expect(empty).toBe("");
    expect(header).toMatch(/^AGENT +PID +CPU +MEM +PROCS +CPU TIME +UP +STATE +ABOUT$/);
    expect(first).toMatch(/^busy +4711 +150% +100B +2 +1m 1s +- +running +-$/);
    expect(last).toMatch(/^new +4711 +- +- +- +- +- +running +-$/);
  });

  test("uses the singular for one agent, and says so if there is none", () => {
    const { terminal } = createTestTerminal();
    const one = agent("one", 1, 1);
    if (one.resources) one.resources.processes = 1;
    expect(linesOf(terminal, [one], "cpu")[0]).toBe(
      "1 running agent, CPU 1.0% of one core, memory 1B, 1 process",
    );
    expect(linesOf(terminal, [], "cpu")).toEqual(["No agents are running."]);
  });

  test("shows the reason and the status of a running agent", () => {
    const { terminal } = createTestTerminal();
    const more = { reason: "will be stopped at 12:00", status: "reading", progress: 0.5 };
    expect(linesOf(terminal, [agent("a", 1, 1, more)], "cpu").at(-1)).toMatch(
      / will be stopped at 12:00; 50% reading$/,
    );
  });

  test("neutralises text of agents, and keeps to the width", () => {
    const { terminal } = createTestTerminal({ columns: 100, env: { NO_COLOR: "1" } });
    const status = `\u001b[2J\u202e${"x".repeat(200)}`;
    const lines = linesOf(terminal, [agent("a", 1, 1, { status })], "cpu");
    expect(lines.at(-1)).toContain("\\x1b[2J\\u202e");
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(100);
  });
});

test.each([
  [0, "0.0%"],
  [3.44, "3.4%"],
  [99.94, "99.9%"],
  [99.96, "100%"],
  [250.4, "250%"],
])("%f is shown as %s", (percent, text) => {
  expect(formatPercent(percent)).toBe(text);
});
