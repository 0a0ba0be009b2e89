import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import type { LogLine } from "../../plugins/agent-manager-tool/client/wire.js";
import { fixtureAgent } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { numbered } from "../helpers/output-files.js";
import { waitFor } from "../helpers/wait-for.js";

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

const LINES = 200_000;

async function printing(logs: object, count = LINES): Promise<TestDaemon> {
  const printer = { template_id: "Printer_v1", ...fixtureAgent("prints-lines.mjs", String(count)), logs };
  daemon = await startDaemon({ templates: [printer] });
  return daemon;
}

/** Numbers of lines that are not what the line at their place should be. */
function wrong(lines: readonly string[]): number[] {
  return lines.flatMap((line, index) => (line === numbered(index) ? [] : [index])).slice(0, 3);
}

async function allLines({ client }: TestDaemon, agentId: string): Promise<LogLine[]> {
  const lines: LogLine[] = [];
  let page = await client.agents.logs(agentId, { since: "1h" });
  for (
    ;
    page.items.length > 0;
    page = await client.agents.logs(agentId, { tail: 10_000, cursor: page.next_cursor ?? "" })
  )
    lines.push(...page.items);
  return lines;
}

/** Follows in the background, over lost connections. */
function following({ client }: TestDaemon, agentId: string) {
  const end = new AbortController();
  const lines: string[] = [];
  const done = (async () => {
    for await (const line of client.agents.followLogs(agentId, { since: "1h" }, { signal: end.signal })) {
      lines.push(line.text ?? "");
    }
  })().catch(() => {});
  const stop = () => {
    end.abort();
    return done;
  };
  return { lines, stop };
}

test("200,000 lines at full speed, rotated, the daemon killed in the middle: each once and in order", {
  timeout: 180_000,
}, async () => {
  const it = await printing({ max_size: "1MiB", keep: 40 });
  await it.client.agents.create({ agent_id: "a", template_id: "Printer_v1" });
  const folder = join(it.home, "agents/a/logs");
  const archives = () => readdirSync(folder).filter((name) => /-\d+\.log$/.test(name)).length;
  const follower = following(it, "a");
  for (const kills of [1, 2, 3]) {
    // Right behind a rotation comes the next one, as long as there is so much.
    const before = archives();
    await waitFor(() => archives() > before || archives() >= 19, {
      what: `rotation ${kills}`,
      timeoutMs: 20_000,
    });
    process.kill(it.pid() ?? 0, "SIGKILL");
    await waitFor(() => it.pid() === undefined, { what: "the daemon's end" });
    await it.start();
  }
  const agent = await it.client.agents.get("a");
  expect([agent.state, agent.restarts]).toEqual(["running", 0]);
  await waitFor(() => archives() >= 19, { what: "all to be put away", timeoutMs: 30_000 });
  await waitFor(() => follower.lines.length >= LINES, {
    what: "all lines to be followed",
    timeoutMs: 60_000,
    diagnose: () => follower.lines.length,
  });
  await follower.stop();
  expect(follower.lines).toHaveLength(LINES);
  expect(wrong(follower.lines)).toEqual([]);
  const lines = await allLines(it, "a");
  expect(lines).toHaveLength(LINES);
  expect(wrong(lines.map(({ text = "" }) => text))).toEqual([]);
  const newest = await it.client.agents.logs("a", { tail: 2 });
  expect(newest.items.map(({ text }) => text)).toEqual([numbered(LINES - 2), numbered(LINES - 1)]);
  const live = readdirSync(folder).find((name) => /stdout\.log$/.test(name)) ?? "";
  expect(statSync(join(folder, live)).blocks * 512).toBeLessThan(2 * 2 ** 20);
});

test("output stays within its bounds while the agent lives, and --since shows all of it that is left", {
  timeout: 120_000,
}, async () => {
  const it = await printing({ max_size: "256KiB", keep: 2 }, 50_000);
  await it.client.agents.create({ agent_id: "a", template_id: "Printer_v1" });
  await waitFor(
    async () => (await it.client.agents.logs("a", { tail: 1 })).items[0]?.text === numbered(49_999),
    {
      what: "the last line",
      timeoutMs: 20_000,
    },
  );
  const folder = join(it.home, "agents/a/logs");
  const used = () =>
    readdirSync(folder).reduce((sum, name) => {
      const stat = statSync(join(folder, name), { throwIfNoEntry: false });
      return sum + (stat?.blocks ?? 0) * 512;
    }, 0);
  const archives = () => readdirSync(folder).filter((name) => /stdout\.\d+-\d+\.log$/.test(name)).length;
  await waitFor(() => used() <= 1_100 * 1_024 && archives() <= 2, {
    what: "the older archives to go",
    timeoutMs: 20_000,
  });
  const { stdout, stderr, code } = await it.cli(["logs", "a", "--since", "10m"]);
  expect(code).toBe(0);
  expect(stderr).toContain("older output of a was removed");
  const lines = stdout.trimEnd().split("\n");
  expect(lines.length).toBeGreaterThan(5_000);
  expect(lines).toEqual(
    Array.from({ length: lines.length }, (_, index) => numbered(50_000 - lines.length + index)),
  );
  expect((await it.cli(["logs", "a", "--since", "10m", "-n", "1"])).stdout).toBe(`${numbered(49_999)}\n`);
  expect((await it.cli(["logs", "a", "--until", "2000-01-01T00:00:00Z"])).stdout).toBe("");
  expect((await it.cli(["logs", "a", "--since", "yesterday"])).stderr).toContain("since");
});
