import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { stateStore } from "openstarry-daemon";
import { createTestHost, type StateStoreSubject, testStateStore } from "openstarry-daemon/testing";
import stateLines from "./index.js";

const folders: string[] = [];
after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "state-lines-"));
  folders.push(folder);
  return folder;
}

/** The store of the plugin, as a daemon on this folder has it. */
function open(dataDir: string): StateStoreSubject & Required<Pick<StateStoreSubject, "start" | "stop">> {
  const host = createTestHost({ dataDir, plugins: [stateLines()] });
  return { store: host.use(stateStore), start: host.start, stop: host.stop, reopen: () => open(dataDir) };
}

testStateStore({ test, capabilities: { durable: true }, factory: () => open(newFolder()) });

/** A file with two writes and one deletion in it; the daemon has ended. */
async function written(): Promise<{ folder: string; file: string }> {
  const folder = newFolder();
  const it = open(folder);
  await it.start();
  await it.store.write("shared", [{ op: "put", key: "a", value: 1 }]);
  await it.store.write("shared", [
    { op: "put", key: "b", value: 2 },
    { op: "delete", key: "a" },
  ]);
  await it.stop();
  return { folder, file: join(folder, "state-lines/state.jsonl") };
}

async function keysIn(folder: string): Promise<string[]> {
  const it = open(folder);
  await it.start();
  try {
    return (await it.store.list("shared", { limit: 10 })).entries.map(({ key }) => key);
  } finally {
    await it.stop();
  }
}

test("the file is for the daemon's user alone", async () => {
  const { file } = await written();
  assert.equal(statSync(file).mode & 0o777, 0o600);
});

test("a batch that a crash has cut short has not happened, wherever it was cut", async () => {
  const { folder, file } = await written();
  const whole = readFileSync(file, "utf8");
  const last = `${JSON.stringify({ ns: "shared", changes: [{ key: "c", version: 9, json: "1", updatedAtMs: 0 }] })}\n`;
  for (let bytes = 0; bytes < last.length; bytes += 7) {
    writeFileSync(file, whole + last.slice(0, bytes));
    assert.deepEqual(await keysIn(folder), ["b"]);
  }
  writeFileSync(file, whole + last);
  assert.deepEqual(await keysIn(folder), ["b", "c"]);
});

test("a line that is damaged is named, and nothing is written over it", async () => {
  const { folder, file } = await written();
  appendFileSync(file, '{"ns":"shared","changes":[{"key":"c"\n');
  const before = readFileSync(file, "utf8");
  await assert.rejects(keysIn(folder), (error: Error) =>
    /line \d+ is not what was written/.test(String(error.cause)),
  );
  assert.equal(readFileSync(file, "utf8"), before);
});

test("it is written anew before it grows without end, and a late watch is told what it has missed", async () => {
  const folder = newFolder();
  const it = open(folder);
  await it.start();
  const value = "x".repeat(1_000_000);
  const [first] = await it.store.write("shared", [{ op: "put", key: "large", value }]);
  for (let round = 0; round < 20; round++)
    await it.store.write("shared", [{ op: "put", key: "large", value }]);
  assert(statSync(join(folder, "state-lines/state.jsonl")).size < 6_000_000);
  const keys = Array.from({ length: 2_500 }, (_, index) => `k${index}`);
  for (const op of ["put", "delete"] as const) {
    for (let at = 0; at < keys.length; at += 100) {
      await it.store.write(
        "shared",
        keys.slice(at, at + 100).map((key) => ({ op, key, value: 1 })),
      );
    }
  }
  await it.stop();
  const later = open(folder);
  await later.start();
  const ended = new AbortController();
  for await (const change of later.store.watch("shared", {
    after: first?.version ?? 0,
    signal: ended.signal,
  })) {
    assert.equal(change.type, "gap");
    break;
  }
  await later.stop();
});
