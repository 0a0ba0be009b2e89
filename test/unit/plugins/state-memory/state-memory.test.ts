import { test } from "vitest";
import { systemClock } from "../../../../core/index.js";
import { createMemoryStore } from "../../../../plugins/state-memory/memory-store.js";
import { testStateStore } from "../../../contract/index.js";

testStateStore({
  test,
  factory: () => createMemoryStore(systemClock),
  capabilities: { durable: false },
});
