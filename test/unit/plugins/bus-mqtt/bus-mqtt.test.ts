import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, test } from "vitest";
import { testMessageBus } from "../../../contract/index.js";
import { brokerSubject } from "../../../helpers/mqtt-broker.js";

const folder = mkdtempSync(join(tmpdir(), "openstarry-bus-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let count = 0;

// A real broker for each test, started again where the bus is opened again.
testMessageBus({
  test,
  factory: () => brokerSubject(join(folder, String(count++))),
  capabilities: { durable: true },
});
