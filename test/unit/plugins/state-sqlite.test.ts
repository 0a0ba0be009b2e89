import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, test } from "vitest";
import { systemClock } from "../../../core/index.js";
import { createSqliteStore } from "../../../plugins/state-sqlite/sqlite-store.js";
import { testStateStore } from "../../contract/index.js";

const folders: string[] = [];
function makeFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "openstarry-state-"));
  folders.push(folder);
  return folder;
}
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

function subject(dataDir: string, maxDeletions = 1_000) {
  return {
    ...createSqliteStore({ dataDir, clock: systemClock, maxDeletions }),
    reopen: () => subject(dataDir, maxDeletions),
  };
}

testStateStore({ test, factory: () => subject(makeFolder()), capabilities: { durable: true } });
