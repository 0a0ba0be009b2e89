import { beforeEach, expect, test } from "vitest";
import type { Agent } from "../../../../core/contracts/agent.js";
import type { StoredAgent } from "../../../../core/contracts/stored-agent.js";
import { createTemplateLanguage } from "../../../../core/template/language.js";
import {
  createMasterFirst,
  type MasterFirst,
} from "../../../../plugins/start-gate-master-first/master-first.js";

const records = new Map<string, StoredAgent>();
let nowMs: number;
let first: MasterFirst;

function put(agent_id: string, state: Agent["state"], requires: string[] = [], desired = "running"): void {
  const document = { template_id: "T", command: "/bin/true", requires };
  const agent = { agent_id, state, desired } as Agent;
  const template = createTemplateLanguage([]).parse({
    template_id: "T",
    revision: "1",
    origin: "test",
    document,
  });
  records.set(agent_id, { agent, template, params: {}, origin: "config" });
}

beforeEach(() => {
  records.clear();
  nowMs = 0;
  first = createMasterFirst({ monotonic: () => nowMs }, (id) => records.get(id));
  put("master", "pending", ["agent:indexer"]);
  put("indexer", "pending", ["agent:store"]);
  first.begin("master", ["master", "indexer", "store", "other"]);
});

const waits = "waits for agent:master, which is started first";

test("nobody waits before a boot has begun", () => {
  const idle = createMasterFirst({ monotonic: () => nowMs }, (id) => records.get(id));
  expect(idle.blocker("other")).toBeUndefined();
});

test("all wait but the master and what it requires, directly or not, records still to come included", () => {
  expect(["master", "indexer", "store", "other"].map(first.blocker)).toEqual([
    ...[undefined, undefined, undefined, waits],
  ]);
});

test("an agent that came after the boot does not wait", () => {
  put("guest", "pending");
  expect(first.blocker("guest")).toBeUndefined();
});

test.each(["starting", "running", "backoff", "failed"] as const)(
  "it is over once the master is %s",
  (state) => {
    put("master", state, ["agent:indexer"]);
    expect(first.blocker("other")).toBeUndefined();
    put("master", "pending", ["agent:indexer"]);
    expect(first.blocker("other")).toBeUndefined();
  },
);

test.each([
  ["failed", "running", undefined],
  ["exited", "running", undefined],
  ["stopped", "stopped", undefined],
  // Ended with the daemon before: this boot starts it.
  ["stopped", "running", waits],
  ["backoff", "running", waits],
] as const)("what the master requires is %s and wanted %s", (state, desired, expected) => {
  put("store", state, [], desired);
  expect(first.blocker("other")).toBe(expected);
});

test("it is over after a minute", () => {
  nowMs = 59_999;
  expect(first.blocker("other")).toBe(waits);
  nowMs = 60_000;
  expect(first.blocker("other")).toBeUndefined();
});

test("agents that require each other do not keep it busy for ever", () => {
  put("store", "pending", ["agent:master"]);
  expect([first.blocker("store"), first.blocker("other")]).toEqual([undefined, waits]);
});
