import { describe, test } from "vitest";
import { testJournal } from "../../contract/journal.js";
import { memoryJournal, memoryJournalState } from "../../contract/memory-plugins.js";

describe("the journal of the test kernel", () => {
  testJournal({
    test,
    factory: () => ({ journal: memoryJournal(memoryJournalState()) }),
    capabilities: { durable: false, prunes: false },
  });
});
