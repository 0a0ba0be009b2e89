import { describe, expect, it } from "vitest";
import { hintForCommandLine } from "../../../bin/cli-hints.js";
import { linesOf } from "../../../bin/commands/why.js";
import { displayWidth, wrap } from "../../../bin/text-layout.js";
import type { Why } from "../../../plugins/agent-manager-tool/client/wire.js";
import { createTestTerminal } from "../../helpers/test-terminal.js";

const answer: Why = {
  agent_id: "leaker",
  state: "running",
  summary: `leaker has been running for 5s as process 7. Last reported status: "\u001b[2J${"long ".repeat(40)}".`,
  desired: "running",
  next: "keeps running; on exit, its restart policy applies (on-failure, at most 5 restarts within 1m)",
  evidence: [
    {
      kind: "limit",
      text: "plugin policy-resources: memory 212MiB over memory_max 200MiB; the run was ended, which counts as a failure",
      at: "2026-01-01T00:00:01.000Z",
      actor: "plugin:policy-resources",
    },
    { kind: "restarts", text: "restarts used: 1 of 5 in the last 1m" },
  ],
  curves: [
    {
      run_id: "one",
      since: "2026-01-01T00:00:00.000Z",
      until: "2026-01-01T00:00:39.000Z",
      samples: 40,
      memory: { sparkline: "▁▂▃▄▅▆▇█".repeat(5), min_bytes: 1_000, max_bytes: 222_298_112, last_bytes: 9e12 },
      cpu: { sparkline: "█".repeat(40), min_percent: 0, max_percent: 100, last_percent: 12.34 },
    },
  ],
  last_runs: [
    {
      run_id: "one",
      status: "status 137: killed by SIGKILL",
      cause: "policy",
      actor: "plugin:policy-resources",
      reason: "",
      uptime: "12s",
      ended_at: "2026-01-01T00:00:01.000Z",
    },
  ],
  output_tail: `${"x".repeat(250)}\nlast \u202eline\n`,
  hint: "read its output (GET /agents/leaker/logs), or create agent b with POST /agents",
};

describe("the text of why", () => {
  it("shows state, next, to do, evidence, usage, last runs and last output", () => {
    const lines = linesOf(createTestTerminal().terminal, answer);
    expect(lines[0]).toBe("leaker is running");
    const text = lines.join("\n");
    expect(text).toContain("\nNext:  keeps running; on exit");
    expect(text).toContain(
      "\nTo do: read its output (openstarry-daemon logs leaker), or create agent b with openstarry-daemon run\n",
    );
    expect(text).toContain("\n  2026-01-01T00:00:01.000Z  limit: plugin policy-resources: memory 212MiB");
    expect(text).toContain("\nUsage before the last exit (40 samples over 39s):\n  memory  ▁▂▃");
    expect(text).toMatch(
      /▇█ {2}1000B to 212MiB, last 8\.2TiB\n {2}CPU {5}█+ {2}0\.0% to 100%, last 12\.3%\n/,
    );
    expect(text).toContain(
      "  2026-01-01T00:00:01.000Z after 12s  policy, by plugin:policy-resources: status 137",
    );
    expect(text).toContain("\nLast output:\n  xxx");
  });

  it.each<[Why["state"], string]>([
    ["running", "is running"],
    ["stopped", "is stopped"],
    ["backoff", "is backing off"],
    ["exited", "has exited"],
    ["failed", "has failed"],
    ["quarantined", "is quarantined"],
  ])("words the state %s as: %s", (state, words) => {
    const [first] = linesOf(createTestTerminal().terminal, { ...answer, state });
    expect(first).toBe(`leaker ${words}`);
  });

  it("does not promise that a command waits when it does not", () => {
    const hint = hintForCommandLine("wait until it is ready (GET /agents/a?wait_for=ready)");
    expect(hint).toBe("wait until it is ready (openstarry-daemon agent status a tells whether it is)");
  });

  it("has at most 100 columns, or the width of the terminal", () => {
    for (const columns of [undefined, 300, 100, 60]) {
      const { terminal } = createTestTerminal();
      const lines = linesOf({ ...terminal, ...(columns === undefined ? {} : { columns }) }, answer);
      const prose = lines.filter((line) => !/[▁█]/.test(line));
      for (const line of prose) expect(displayWidth(line)).toBeLessThanOrEqual(Math.min(columns ?? 100, 100));
      for (const line of lines) expect(displayWidth(line)).toBeLessThanOrEqual(100);
    }
  });

  it("neutralises control characters", () => {
    const text = linesOf(createTestTerminal().terminal, answer).join("\n");
    for (const unsafe of ["\u001b", "\u202e"]) expect(text).not.toContain(unsafe);
    expect(text).toContain("\\x1b[2J");
    expect(text).toContain("last \\u202eline");
  });

  it("leaves out empty sections", () => {
    const { output_tail: _, ...rest } = answer;
    const lines = linesOf(createTestTerminal().terminal, {
      ...rest,
      evidence: [],
      curves: [],
      last_runs: [],
    });
    expect(lines.at(-1)).toMatch(/POST|run$/);
  });
});

describe("wrap", () => {
  it.each<[string, number, number, string[]]>([
    ["", 10, 0, [""]],
    ["one two three", 100, 0, ["one two three"]],
    ["one two three", 8, 0, ["one two", "three"]],
    ["one two three", 8, 2, ["one two", "  three"]],
    ["  one two", 5, 2, ["  one", "  two"]],
    ["abcdefghij", 4, 0, ["abcd", "efgh", "ij"]],
    ["a bcdefghij", 4, 1, ["a", " bcd", " efg", " hij"]],
    ["one\ntwo", 10, 0, ["one", "two"]],
    ["漢字漢字", 4, 0, ["漢字", "漢字"]],
  ])("%j in %i columns", (text, width, hanging, lines) => expect(wrap(text, width, hanging)).toEqual(lines));
});
