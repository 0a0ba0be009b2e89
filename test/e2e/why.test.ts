import { afterAll, beforeAll, expect, test } from "vitest";
import { fixtureAgent } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { waitFor } from "../helpers/wait-for.js";

/** 4 MiB more every tenth of a second. */
const LEAK = "const held = []; setInterval(() => held.push(Buffer.alloc(4 << 20, 1)), 100)";

const templates = [
  {
    template_id: "Leaks",
    command: process.execPath,
    args: ["-e", LEAK],
    resources: { memory_max: "160MiB", on_exceed: "stop" },
    stop: { grace: "2s" },
  },
  {
    template_id: "Crashes",
    ...fixtureAgent("crashes.sh"),
    restart: { policy: "always", max_restarts: 2, period: "60s", backoff: { min: "10ms", max: "20ms" } },
  },
  { template_id: "Waits", ...fixtureAgent("sleeper.sh", "/dev/null"), requires: ["agent:crashes"] },
];

let daemon: TestDaemon;
beforeAll(async () => {
  const plugins = [
    ["sampler-procfs", { interval: "250ms" }],
    ["spawner-process", { cgroups: false }],
  ];
  daemon = await startDaemon({ config: { plugins }, templates });
});
afterAll(() => daemon?.stop());

const create = (agent_id: string, template_id: string) =>
  daemon.client.agents.create({ agent_id, template_id });
const ended = (agentId: string) => daemon.client.agents.wait(agentId, { for: "ended", timeoutMs: 40_000 });

/** What a person reads; and the same with the line ends of wrapping gone. */
async function why(agentId: string) {
  const { code, stdout } = await daemon.cli(["why", agentId]);
  expect(code).toBe(0);
  for (const line of stdout.split("\n")) expect([...line].length, line).toBeLessThanOrEqual(100);
  return { text: stdout, words: stdout.replace(/\s+/g, " ") };
}

test("why names who stopped a leaking agent, with the figures and a rising sparkline", async () => {
  await create("leaks", "Leaks");
  expect((await ended("leaks")).state).toBe("stopped");
  const { text, words } = await why("leaks");
  expect(words).toMatch(
    /^leaks is stopped leaks is stopped: memory \d+MiB over memory_max 160MiB; it was killed/,
  );
  expect(words).toContain("stopped by plugin policy-resources (status 143: terminated by SIGTERM)");
  expect(words).toMatch(
    / limit: plugin policy-resources: memory \d+MiB over memory_max 160MiB; agent stopped/,
  );
  expect(words).toContain(" limit: memory_max 160MiB, enforced by polling (action: stop)");
  expect(words).toContain(
    "To do: fix what it was ended for, or change the rule, then openstarry-daemon agent start",
  );
  const curve = /^ {2}memory {2}([▁-█]+) {2}\S+ to (\d+)MiB, last (\d+)MiB$/m.exec(text);
  const [, line = "", max, last] = curve ?? [];
  expect([line[0] !== "█", line.at(-1), last]).toEqual([true, "█", max]);
  expect(Number(max)).toBeGreaterThan(160);

  const told = JSON.parse((await daemon.cli(["why", "leaks", "--json"])).stdout);
  // How long ago it was is another matter at each time.
  expect({ ...(await daemon.client.agents.why("leaks")), summary: told.summary }).toEqual(told);
  const { memory, samples } = told.curves[0];
  expect(samples).toBeGreaterThanOrEqual(3);
  expect(memory.min_bytes).toBeLessThan(memory.max_bytes / 1.5);
});

test("why explains a crash loop, its last output, and an agent that waits for it", async () => {
  await create("crashes", "Crashes");
  expect((await ended("crashes")).state).toBe("failed");
  const { text, words } = await why("crashes");
  expect(words).toContain(
    "it exited with code 3; crash loop: 3 restarts would be within 1m, at most 2 allowed.",
  );
  expect(words).toContain("3 of its last 3 runs failed. It was restarted automatically 2 times.");
  expect(text).toContain("\nNext:  nothing until it is started\n");
  expect(text.match(/^ {2}\S+Z after \S+ {2}self: exit 3: program-specific error$/gm)).toHaveLength(3);
  expect(text).toMatch(/\nLast output:\n {2}no model to talk to\n$/);

  await create("waits", "Waits");
  await waitFor(async () => (await daemon.client.agents.get("waits")).reason, { what: "it to wait" });
  const waits = await why("waits");
  expect(waits.words).toContain("waits is waiting for agent:crashes, which is failed.");
  expect(waits.words).toContain(
    "Next: will start when agent crashes is running; this will not happen by itself",
  );
  expect(waits.words).toContain(
    "To do: find out why: openstarry-daemon why crashes; start it again: openstarry-daemon agent start crashes",
  );
  expect(waits.words).toMatch(/requirement: agent:crashes has failed: it exited with code 3; crash loop/);
});

test("why of an unknown agent exits with 4", async () => {
  expect((await daemon.cli(["why", "nobody"])).code).toBe(4);
});
