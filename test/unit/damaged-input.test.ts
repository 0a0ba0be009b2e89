import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { isOpenStarryError, parseData, type StoredAgent } from "../../core/index.js";
import { readStoredAgent } from "../../plugins/journal-sqlite/stored-agent-check.js";
import { readStatusFile } from "../../plugins/spawner-process/process/exit-status.js";
import { memoryJournalState, memorySpawner } from "../contract/memory-plugins.js";
import { createTestKernel } from "../contract/test-kernel.js";
import { sectionsPlugin } from "../helpers/built-in-sections.js";
import { createFakeClock } from "../helpers/fake-clock.js";
import { seeded } from "../helpers/seeded.js";
import { templateLanguage } from "../helpers/template-language.js";
import { waitFor } from "../helpers/wait-for.js";

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

const random = seeded(20_260_101);
const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
const STRANGE = [null, true, -1, 0, 1e308, "", "x", "\ud800", "__proto__", [], [null], {}, { a: 1 }];

/** A copy in which one value, anywhere, is missing, strange, or doubled. */
function mutated(value: unknown): unknown {
  const copy = structuredClone(value);
  let place = { at: copy } as Record<string, unknown>;
  let key = "at";
  while (typeof place[key] === "object" && place[key] !== null && random() > 0.15) {
    const inner = place[key] as Record<string, unknown>;
    const keys = Object.keys(inner);
    if (keys.length === 0) break;
    place = inner;
    key = pick(keys);
  }
  if (random() < 0.4) delete place[key];
  else place[key] = structuredClone(pick(STRANGE));
  return key === "at" ? place["at"] : copy;
}

function noise(text: string): string {
  const characters = [...text];
  const count = 1 + Math.floor(random() * 4);
  for (let index = 0; index < count; index++) {
    const at = Math.floor(random() * (characters.length + 1));
    characters.splice(
      at,
      Math.floor(random() * 3),
      pick(["{", "}", "[", '"', ":", "\0", "\n", "- ", "&a", "*a", "é", ",", "1e999"]),
    );
  }
  return characters.join("").slice(0, random() < 0.2 ? Math.floor(random() * text.length) : undefined);
}

/** What it throws is one of our own errors, with a word on what to do. */
async function expectTold(act: () => unknown, from: unknown): Promise<void> {
  try {
    await act();
  } catch (error) {
    expect(isOpenStarryError(error), `${JSON.stringify(from)}: ${error}`).toBe(true);
  }
}

/** Records as a daemon leaves them behind, in each kind of state. */
async function realRecords(): Promise<StoredAgent[]> {
  const clock = createFakeClock();
  const state = memoryJournalState();
  const kernel = createTestKernel({
    clock,
    state,
    plugins: [sectionsPlugin({ names: ["children"] })],
    templates: { Plain: {}, Brief: { remove_after: "1h", children: {}, requires: ["agent:live"] } },
    policy: {
      decide: () => ({ action: "restart", delayMs: 60_000, reason: "later", memory: { streak: 1 } }),
    },
  });
  await kernel.start();
  const intent = { actor: "operator", reason: "a test" };
  for (const agent_id of ["live", "waits"]) {
    await kernel.control.create({ agent_id, template_id: "Plain" }, intent);
    await kernel.agents.wait(agent_id, "ready");
  }
  kernel.spawner.run("waits").end({ kind: "exited", code: 1 });
  await waitFor(() => kernel.agents.get("waits")?.state === "backoff", { what: "the backoff" });
  await kernel.control.create({ agent_id: "over", template_id: "Brief" }, intent);
  await kernel.agents.wait("over", "ready");
  await kernel.control.stop("over", intent);
  await kernel.agents.wait("over", "ended");
  await kernel.stop({ agents: "keep", reason: "a crash" });
  return [...state.agents.values()];
}

test("a record is refused, or a daemon can go on with it", async () => {
  const records = await realRecords();
  expect(records.map(({ agent }) => agent.state).sort()).toEqual(["backoff", "running", "stopped"]);
  let [accepted, refused] = [0, 0];
  for (let round = 0; round < 600; round++) {
    const json = JSON.stringify(mutated(pick(records))) ?? "";
    const bytes = new TextEncoder().encode(json).buffer;
    const id = /"agent_id":"(\w+)"/.exec(json)?.[1] ?? "live";
    let stored: StoredAgent;
    try {
      stored = readStoredAgent(id, { record: bytes, checksum: null });
    } catch (error) {
      expect(error).toBeInstanceOf(Error);
      expect(error).not.toBeInstanceOf(TypeError);
      refused++;
      continue;
    }
    accepted++;
    const clock = createFakeClock();
    const state = memoryJournalState();
    state.agents.set(id, stored);
    const kernel = createTestKernel({ clock, state, spawner: memorySpawner() });
    await kernel.start();
    await clock.advance(120_000);
    await kernel.stop({ agents: "stop", reason: "the test is over" });
    const failed = kernel.logged.filter(({ message }) => /step failed|listener/.test(message));
    expect([json, failed]).toEqual([json, []]);
  }
  expect(Math.min(accepted, refused)).toBeGreaterThan(50);
}, 60_000);

test("any document is a template or refused in words", async () => {
  const document = {
    template_id: "T",
    command: "/bin/true",
    args: ["{{params.q}}", "{{agent_id}}"],
    params: { q: { type: "string", default: "a", maxLength: 10 } },
    env: { A: "b" },
    requires: ["agent:x"],
    readiness: { type: "heartbeat", timeout: "5s" },
    restart: { policy: "always", max_restarts: 3, period: "1m", backoff: { min: "1s", max: "2s" } },
    stop: { signal: "SIGINT", grace: "3s" },
    children: { max: 2, depth: 1 },
    logs: { keep: 1 },
    remove_after: "1h",
    labels: { team: "a" },
  };
  for (let round = 0; round < 2_000; round++) {
    const damaged = mutated(random() < 0.5 ? document : mutated(document));
    const source = { template_id: "T", revision: "r", document: damaged, origin: "a test" };
    await expectTold(() => templateLanguage.parse(source), damaged);
  }
});

test("any text is a config or refused in words", async () => {
  const yaml = "agents:\n  - agent_id: a\n    template_id: T\n    params: { q: 'a b' }\ntemplates: [./t]\n";
  const json = '{"agents":[{"agent_id":"a","template_id":"T"}],"templates":["./t"],"n":1}';
  for (let round = 0; round < 2_000; round++) {
    const format = pick(["json", "yaml"] as const);
    const text = noise(format === "json" ? json : yaml);
    await expectTold(() => parseData(text, { format, code: "config_invalid", what: "config" }), text);
  }
});

test("any bytes in a status file are an end or nothing", () => {
  const folder = mkdtempSync(join(tmpdir(), "openstarry-status-"));
  folders.push(folder);
  const file = join(folder, "R.status");
  for (let round = 0; round < 1_000; round++) {
    const text = noise(pick(["exit 0\n", "exit 137\n", "never\nexit 125\n", "exit 999\n"]));
    writeFileSync(file, text);
    const status = readStatusFile(file);
    const sound = /^exit (\d{1,3})\n$/.test(text) || text === "never\nexit 125\n";
    if (!sound) expect([text, status]).toEqual([text, undefined]);
  }
});
