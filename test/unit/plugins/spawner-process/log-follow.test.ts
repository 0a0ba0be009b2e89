import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { readLogs } from "../../../../plugins/spawner-process/logs/read.js";
import { liveName } from "../../../../plugins/spawner-process/logs/segments.js";
import { newRunId } from "../../../contract/run-id.js";

vi.mock("node:fs", async (original) => ({
  ...(await original<typeof import("node:fs")>()),
  watch() {
    throw Object.assign(new Error("ENOSPC: System limit for number of file watchers reached"), {
      code: "ENOSPC",
    });
  },
}));

test("a follow goes on where nothing more can be watched", async () => {
  const folder = mkdtempSync(join(tmpdir(), "openstarry-follow-"));
  const stop = new AbortController();
  try {
    const file = join(folder, liveName(newRunId(), "stdout"));
    writeFileSync(file, "one\n");
    const texts: string[] = [];
    for await (const { bytes } of readLogs(folder, { follow: true, signal: stop.signal }, () => undefined)) {
      texts.push(Buffer.from(bytes).toString());
      if (texts.length === 1) appendFileSync(file, "two\n");
      else stop.abort();
    }
    expect(texts).toEqual(["one", "two"]);
  } finally {
    stop.abort();
    rmSync(folder, { recursive: true, force: true });
  }
});
