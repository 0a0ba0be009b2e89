import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, closeSync, openSync, statSync, truncateSync, writeSync } from "node:fs";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { describe, expect, test } from "vitest";
import { timeOfUuidv7 } from "../../../../core/index.js";
import { openOutput } from "../../../../plugins/spawner-process/logs/output-reader.js";
import { readTail } from "../../../../plugins/spawner-process/logs/output-tail.js";
import { readLogs } from "../../../../plugins/spawner-process/logs/read.js";
import { indexName, liveName } from "../../../../plugins/spawner-process/logs/segments.js";
import { appendEntry, readIndex } from "../../../../plugins/spawner-process/logs/time-index.js";
import { newRunId } from "../../../contract/run-id.js";
import {
  numbered,
  numberedLines,
  numbers,
  type OutputFiles,
  type OutputFilesOptions,
  outputFiles,
} from "../../../helpers/output-files.js";
import { waitFor } from "../../../helpers/wait-for.js";

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("utf8");

/** Reads on in the background. */
function following(it: OutputFiles, cursor?: string) {
  const end = new AbortController();
  const lines: string[] = [];
  const gaps: (string | undefined)[] = [];
  const query = { follow: true, signal: end.signal, ...(cursor === undefined ? {} : { cursor }) };
  const done = (async () => {
    for await (const line of readLogs(it.folder, query, it.rotation.seen)) {
      lines.push(text(line.bytes));
      gaps.push(line.gap);
    }
  })();
  const stop = () => {
    end.abort();
    return done;
  };
  return { lines, gaps, end: stop };
}

describe("cursors", () => {
  test("hold across rotations, wherever they point", async () => {
    const it = outputFiles();
    it.print(numberedLines(0, 1_500));
    const before = await it.read();
    await it.rotated();
    for (const index of [0, 600, 654, 655, 656, 1_400, 1_498]) {
      const after = await it.texts({ cursor: before[index]?.cursor ?? "" });
      expect(after).toEqual(numbers(index + 1, 1_499 - index));
    }
    expect((await it.read()).map(({ cursor }) => cursor)).toEqual(before.map(({ cursor }) => cursor));
  });

  test("beyond the end, answer nothing and change nothing", async () => {
    const it = outputFiles();
    it.print("first\n");
    const over = it.keep();
    await waitFor(() => it.names().length === 2, { what: "the index" });
    expect(await it.texts({ cursor: `${it.runId}:999999-0` })).toEqual([]);
    it.print("second\n");
    await over();
    expect(await it.texts()).toEqual(["first", "second"]);
    expect(it.said).toEqual([]);
  });

  test("into what is gone, go on with the oldest line that is left, and say so", async () => {
    const it = outputFiles({ keep: 1 });
    it.print(numberedLines(0, 3_000));
    const [first] = await it.read();
    await it.rotated();
    const [next, after] = await it.read({ cursor: first?.cursor ?? "" });
    expect(next?.gap).toBe("pruned");
    expect(Number.parseInt(text(next?.bytes ?? Buffer.alloc(0)), 10)).toBeGreaterThan(1_000);
    expect(after?.gap).toBeUndefined();
    const later = outputFiles({ keep: 0, folder: it.folder });
    later.print("later\n");
    await later.rotated();
    expect(await later.read({ cursor: first?.cursor ?? "" })).toMatchObject([
      { run_id: later.runId, gap: "pruned" },
    ]);
  });
});

test("the last lines are found in archives, and in runs before", async () => {
  const it = outputFiles();
  it.print(numberedLines(0, 1_500));
  await it.rotated();
  for (const tail of [0, 1, 100, 900, 1_499, 1_500, 9_999]) {
    expect(await it.texts({ tail })).toEqual(numbers(0, 1_500).slice(Math.max(0, 1_500 - tail)));
  }
  expect(await readTail(it.folder, it.runId)).toBe(numbers(1_460, 40).join("\n"));
  const later = outputFiles({ folder: it.folder });
  later.print("later\n");
  expect(await later.texts({ tail: 2 })).toEqual(["later"]);
  expect(await later.texts({ tail: 2, since: 0 })).toEqual([numbered(1_499), "later"]);
  expect(await later.texts({ tail: 1, previous: true })).toEqual([numbered(1_499)]);
  const [, , third] = await later.read({ tail: 3, previous: true });
  const [first] = await later.read({ tail: 3, previous: true });
  const cursor = first?.cursor ?? "";
  expect(await later.texts({ cursor })).toEqual([...numbers(1_498, 2), "later"]);
  expect(await later.texts({ cursor, previous: true })).toEqual(numbers(1_498, 2));
  expect(await later.texts({ cursor: third?.cursor ?? "", previous: true })).toEqual([]);
});

test("of two streams each gives half of the last lines, and what one does not use the other does", async () => {
  const it = outputFiles();
  it.print("starts\nFATAL: real reason\n");
  it.print(numberedLines(0, 30), "stderr");
  const fatal = "FATAL: real reason";
  expect(await it.texts({ tail: 20 })).toEqual(["starts", fatal, ...numbers(12, 18)]);
  expect(await it.texts({ tail: 2 })).toEqual([fatal, numbered(29)]);
  expect(await it.texts({ tail: 1 })).toEqual([numbered(29)]);
  expect(await it.texts({ tail: 3, stream: "stderr" })).toEqual(numbers(27, 3));
  expect(await readTail(it.folder, it.runId)).toBe(["starts", fatal, ...numbers(0, 30)].join("\n"));
  it.print(numberedLines(30, 70), "stderr");
  expect(await readTail(it.folder, it.runId)).toBe(["starts", fatal, ...numbers(60, 40)].join("\n"));
  it.print(numberedLines(100, 70));
  expect(await readTail(it.folder, it.runId)).toBe([...numbers(150, 20), ...numbers(80, 20)].join("\n"));
});

test("of a last line that is longer than the tail there is its end", async () => {
  const it = outputFiles();
  it.print(`${"x".repeat(9_000)}end\n`);
  expect(await readTail(it.folder, it.runId)).toMatch(/^x{4000,}end$/);
});

test("what becomes a hole while it is read comes from the archive", async () => {
  const it = outputFiles();
  it.print(numberedLines(0, 1_500));
  const output = openOutput(it.folder, it.runId, "stdout", it.rotation.seen);
  const buffer = Buffer.alloc(1_000);
  expect(text((await output.read(0, buffer)).bytes)).toBe(numberedLines(0, 10));
  await it.rotated();
  expect(text((await output.read(1_000, buffer)).bytes)).toBe(numberedLines(10, 10));
  await output.close();
});

test("followed while it is rotated, restarted and printed at full speed: nothing is lost or repeated", async () => {
  const it = outputFiles();
  const over = it.keep();
  const follower = following(it);
  const count = 40_000;
  const script = `let i = 0; while (i < ${count}) require("fs").writeSync(1, String(i++).padEnd(99, ".") + "\\n")`;
  const fd = openSync(join(it.folder, liveName(it.runId, "stdout")), "a");
  const writer = spawn(process.execPath, ["-e", script], { stdio: ["ignore", fd, "inherit"] });
  closeSync(fd);
  const ended = once(writer, "exit");
  await waitFor(() => follower.lines.length === count, {
    what: "all lines",
    timeoutMs: 25_000,
    diagnose: () => follower.lines.length,
  });
  expect((await ended)[0]).toBe(0);
  await over();
  const later = outputFiles({ folder: it.folder, runId: newRunId() });
  later.print("later\n");
  await waitFor(() => follower.lines.length > count, { what: "the line of the next run" });
  await follower.end();
  expect(follower.lines.every((line, index) => index === count || Number.parseInt(line, 10) === index)).toBe(
    true,
  );
  expect(follower.lines.slice(count)).toEqual(["later"]);
  expect(new Set(follower.gaps)).toEqual(new Set([undefined]));
  expect(it.names().filter((name) => /-\d+\.log$/.test(name)).length).toBeGreaterThan(50);
});

describe("time", () => {
  /** Lines 0 to 9 by second 0 of the run, 10 to 19 by 10, and so on. */
  async function timed(options?: OutputFilesOptions) {
    const it = outputFiles(options);
    const began = timeOfUuidv7(it.runId);
    for (let step = 0; step < 10; step++) {
      it.print(numberedLines(step * 10, 10));
      await appendEntry(
        it.folder,
        it.runId,
        "stdout",
        { offset: (step + 1) * 1_000, timeMs: began + step * 10_000 },
        0,
      );
    }
    return { it, at: (seconds: number) => began + seconds * 1_000 };
  }

  test("since and until err on the side of more", async () => {
    const { it, at } = await timed();
    expect(await it.texts({ since: at(55) })).toEqual(numbers(60, 40));
    expect(await it.texts({ since: at(50) })).toEqual(numbers(50, 50));
    expect(await it.texts({ until: at(45) })).toEqual(numbers(0, 60));
    expect(await it.texts({ since: at(55), until: at(75) })).toEqual(numbers(60, 30));
    expect(await it.texts({ tail: 5, until: at(45) })).toEqual(numbers(55, 5));
    expect(await it.texts({ since: at(500) })).toEqual([]);
    expect(await it.texts({ since: at(-500) })).toEqual(numbers(0, 100));
    expect(await it.texts({ until: at(-500) })).toEqual([]);
  });

  test("a line that was half there then is shown whole", async () => {
    const it = outputFiles();
    it.print("first\nsec");
    await appendEntry(it.folder, it.runId, "stdout", { offset: 9, timeMs: 1_000 }, 0);
    it.print("ond\nthird\n");
    expect(await it.texts({ since: 2_000 })).toEqual(["second", "third"]);
    await appendEntry(it.folder, it.runId, "stdout", { offset: 19, timeMs: 3_000 }, 1);
  });

  test("of former runs only what falls into it", async () => {
    const { it, at } = await timed({ runId: "018f0000-0000-7000-8000-000000000001" });
    const later = outputFiles({ folder: it.folder });
    later.print("later\n");
    expect(await later.texts({ since: at(85) })).toEqual([...numbers(90, 10), "later"]);
    expect(await later.texts({ since: at(85), tail: 3 })).toEqual([...numbers(98, 2), "later"]);
    expect(await later.texts({ since: timeOfUuidv7(later.runId) })).toEqual(["later"]);
    expect(await later.texts({ until: at(5) })).toEqual(numbers(0, 20));
  });

  test("a damaged index makes the answer coarser, never smaller", async () => {
    const { it, at } = await timed();
    const index = join(it.folder, indexName(it.runId, "stdout"));
    appendFileSync(index, "\n99999999 1 10000000\n12 garbage\n5000 17");
    await appendEntry(it.folder, it.runId, "stdout", { offset: 10_000, timeMs: at(100) }, 0);
    expect((await readIndex(it.folder, it.runId, "stdout")).map(({ offset }) => offset / 1_000)).toEqual([
      1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10,
    ]);
    const fd = openSync(index, "r+");
    writeSync(fd, "9999", statSync(index).size / 2);
    closeSync(fd);
    const lines = await it.texts({ since: at(55) });
    expect(lines.slice(-40)).toEqual(numbers(60, 40));
    truncateSync(index, 0);
    expect(await it.texts({ since: at(55) })).toEqual(numbers(0, 100));
  });

  test("the index is kept small", async () => {
    const it = outputFiles();
    it.print("line\n");
    let count = 0;
    const most = 20_000;
    for (let offset = 1; offset <= 10; offset++) {
      count = await appendEntry(it.folder, it.runId, "stdout", { offset, timeMs: offset }, count);
    }
    expect(count).toBe(10);
    count = await appendEntry(it.folder, it.runId, "stdout", { offset: 11, timeMs: 11 }, most);
    expect(count).toBe(6);
    expect((await readIndex(it.folder, it.runId, "stdout")).map(({ offset }) => offset)).toEqual([
      2, 4, 6, 8, 10, 11,
    ]);
  });

  test("the rotation writes it", async () => {
    const it = outputFiles();
    it.print("early\n");
    const before = Date.now();
    await it.rotated();
    const entries = await readIndex(it.folder, it.runId, "stdout");
    expect(entries).toEqual([{ offset: 6, timeMs: expect.any(Number) }]);
    expect(entries[0]?.timeMs).toBeGreaterThanOrEqual(before);
    expect(await it.texts({ since: Date.now() + 1 })).toEqual([]);
  });
});

describe("an agent that empties its own file", () => {
  test("is noticed, and followed on", async () => {
    const it = outputFiles();
    it.print(numberedLines(0, 1_000));
    const over = it.keep();
    const follower = following(it);
    await waitFor(() => follower.lines.length === 1_000, { what: "the first lines" });
    await waitFor(() => it.names().some((name) => /-\d+\.log$/.test(name)), { what: "an archive" });
    truncateSync(join(it.folder, liveName(it.runId, "stdout")), 0);
    it.print("again\n");
    await waitFor(() => follower.lines.length === 1_001, { what: "the line after that", timeoutMs: 25_000 });
    expect([follower.lines.at(-1), follower.gaps.at(-1)]).toEqual(["again", "truncated"]);
    it.print(numberedLines(0, 1_000));
    await waitFor(() => follower.lines.length === 2_001, { what: "what came then", timeoutMs: 10_000 });
    await follower.end();
    await over();
    expect(follower.gaps.filter(Boolean)).toHaveLength(1);
    expect(it.said).toEqual([expect.stringContaining("emptied its own output file")]);
    // What had been put away is there still, and what came afterwards was rotated too.
    const lines = await it.read();
    expect(text(lines[0]?.bytes ?? Buffer.alloc(0))).toBe(numbered(0));
    const again = lines.findIndex(({ gap }) => gap === "truncated");
    expect(lines.slice(again).map(({ bytes }) => text(bytes))).toEqual(["again", ...numbers(0, 1_000)]);
  });

  test("is noticed by whoever had read more", async () => {
    const it = outputFiles();
    it.print("first\n");
    const over = it.keep();
    const follower = following(it);
    // The rotation has looked, and will again in a second only.
    await waitFor(() => it.names().length === 2, { what: "the index" });
    it.print(numberedLines(0, 10));
    await waitFor(() => follower.lines.length === 11, { what: "the first lines" });
    truncateSync(join(it.folder, liveName(it.runId, "stdout")), 0);
    it.print("again\n");
    await waitFor(() => follower.lines.length === 12, { what: "the line after that", timeoutMs: 25_000 });
    await follower.end();
    await over();
    expect([follower.lines.at(-1), follower.gaps.at(-1)]).toEqual(["again", "truncated"]);
  });

  test("is noticed by the next daemon too, also when it has printed more since", async () => {
    const it = outputFiles();
    it.print(numberedLines(0, 1_500));
    await it.rotated();
    truncateSync(join(it.folder, liveName(it.runId, "stdout")), 0);
    it.print("again\n");
    await it.rotated();
    expect((await it.read()).at(-1)).toMatchObject({ gap: "truncated" });
    it.print(numberedLines(0, 3_000));
    await it.rotated();
    truncateSync(join(it.folder, liveName(it.runId, "stdout")), 0);
    it.print(numberedLines(0, 4_000));
    await it.rotated();
    expect(it.said).toHaveLength(2);
    expect((await it.texts()).slice(-4_000)).toEqual(numbers(0, 4_000));
  });
});

test("one line of 256 MiB: memory stays bounded, and the loop goes on", { timeout: 60_000 }, async () => {
  const it = outputFiles({ maxSizeBytes: 10 * 2 ** 20, keep: 30 });
  const path = join(it.folder, liveName(it.runId, "stdout"));
  const fd = openSync(path, "a");
  const block = Buffer.alloc(4 * 2 ** 20, "x");
  for (let written = 0; written < 64; written++) writeSync(fd, block);
  writeSync(fd, "\nlast\n");
  closeSync(fd);
  const before = process.memoryUsage().rss;
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  await it.rotated();
  let bytes = 0;
  let peak = 0;
  for await (const line of readLogs(it.folder, {}, it.rotation.seen)) {
    bytes += line.bytes.length;
    peak = Math.max(peak, process.memoryUsage.rss());
  }
  expect(bytes).toBe(256 * 2 ** 20 + 4);
  expect(await it.texts({ tail: 1 })).toEqual(["last"]);
  expect(await readTail(it.folder, it.runId)).toBe("last");
  delay.disable();
  expect(peak - before).toBeLessThan(128 * 2 ** 20);
  // Reading it in one go would take several times as long.
  expect(delay.max / 1e6).toBeLessThan(1_000);
});
