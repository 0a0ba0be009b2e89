import { expect, test } from "vitest";
import { journal } from "../../../../core/index.js";
import journalMemory from "../../../../plugins/journal-memory/index.js";
import { createMemoryJournal } from "../../../../plugins/journal-memory/memory-journal.js";
import { storedAgentFixture, testJournal } from "../../../contract/index.js";

testJournal({
  test,
  factory: ({ maxEvents }) => createMemoryJournal({ now: Date.now, maxEvents }),
  capabilities: { durable: false, prunes: true },
});

test("it keeps what it holds over stop and start of the same object", async () => {
  const memory = createMemoryJournal({ now: Date.now, maxEvents: 10 });
  memory.start();
  await memory.journal.append({ put: [storedAgentFixture("a")] });
  memory.stop();
  memory.start();
  expect((await memory.journal.load()).agents).toEqual([storedAgentFixture("a")]);
});

test("the plugin provides the slot and refuses a wrong option", async () => {
  const { definition } = journalMemory;
  expect(definition.provides).toEqual([journal]);
  const result = await definition.options["~standard"].validate({ max_events: 0 });
  expect(result.issues?.[0]?.path).toEqual(["max_events"]);
});
