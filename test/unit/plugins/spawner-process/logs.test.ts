import { spawnSync } from "node:child_process";
import { chownSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test } from "vitest";
import { loadPunchHole, punchByTool } from "../../../../plugins/spawner-process/logs/punch-hole.js";
import { liveName } from "../../../../plugins/spawner-process/logs/segments.js";
import { numbered, numberedLines, numbers, outputFiles } from "../../../helpers/output-files.js";

const KIB = 1_024;
const ROTATOR = fileURLToPath(new URL("../../../fixtures/bin/log-rotator.ts", import.meta.url));

import { waitFor } from "../../../helpers/wait-for.js";

describe("rotation", () => {
  const ways = {
    "by fallocate(2)": loadPunchHole(),
    "by fallocate(1)": punchByTool(() => "/usr/bin/fallocate"),
  };
  for (const [name, punch] of Object.entries(ways)) {
    test.runIf(punch)(
      `${name}: every line stays, once and in order, and the live file gives its space back`,
      async () => {
        const it = outputFiles(punch ? { punches: [punch] } : {});
        it.print(numberedLines(0, 3_000));
        await it.rotated();
        expect(it.problems.concat(it.said)).toEqual([]);
        expect(await it.texts()).toEqual(numbers(0, 3_000));
        expect(it.names().filter((file) => /-\d+\.log$/.test(file))).toHaveLength(4);
        const live = statSync(join(it.folder, liveName(it.runId, "stdout")));
        expect(live.size).toBe(300_000);
        expect(live.blocks * 512).toBeLessThan(64 * KIB);
      },
    );
  }

  test("only so many archives stay, and offsets with them", async () => {
    const it = outputFiles({ keep: 2 });
    it.print(numberedLines(0, 3_000));
    await it.rotated();
    expect(it.diskBytes()).toBeLessThan(4 * 64 * KIB);
    const lines = await it.texts();
    expect(lines).toEqual(numbers(3_000 - lines.length, lines.length));
    expect(lines.length).toBeGreaterThan((2 * 64 * KIB) / 100);
  });

  test("where no archive is kept, the live file still knows where it begins", async () => {
    const it = outputFiles({ keep: 0 });
    it.print(numberedLines(0, 3_000));
    await it.rotated();
    expect(it.diskBytes()).toBeLessThan(2 * 64 * KIB);
    it.print(numberedLines(3_000, 10));
    const lines = await it.texts();
    expect(lines).toEqual(numbers(3_010 - lines.length, lines.length));
  });

  test("a line that is longer than an archive is put together again", async () => {
    const it = outputFiles();
    const long = "x".repeat(200 * KIB);
    it.print(`before\n${long}\nafter\n`);
    await it.rotated();
    expect(await it.texts()).toEqual(["before", long, "after"]);
    expect((await it.texts({ tail: 2 }))[1]).toBe("after");
  });

  test("former runs and archives count alike", async () => {
    const first = outputFiles({ keep: 2 });
    first.print(numberedLines(0, 1_500));
    await first.rotated();
    const second = outputFiles({ keep: 2, folder: first.folder });
    second.print("second\n");
    await second.keep()();
    // Its file and one archive of it; the other is kept by name, for where the file begins.
    const lines = await second.texts({ previous: true });
    expect(lines.at(-1)).toBe(numbered(1_499));
    const third = outputFiles({ keep: 2, folder: first.folder });
    third.print("third\n");
    await third.keep()();
    expect(await third.texts({ previous: true })).toEqual(["second"]);
    const fourth = outputFiles({ keep: 2, folder: first.folder });
    fourth.print("fourth\n");
    await fourth.keep()();
    expect(fourth.names().some((name) => name.startsWith(first.runId))).toBe(false);
    expect(await fourth.texts({ since: 0 })).toEqual(["second", "third", "fourth"]);
  });

  test("killed before any file operation, and begun again: every line once, in order", {
    timeout: 120_000,
  }, async () => {
    const steps: string[] = [];
    for (let step = 1; ; step++) {
      const it = outputFiles();
      it.print(numberedLines(0, 1_500));
      const args = [ROTATOR, it.folder, it.runId, String(64 * KIB), "100", String(step)];
      const child = spawnSync(process.execPath, ["--import", "jiti/register", ...args], { encoding: "utf8" });
      expect(child.stderr).toBe("");
      // The agent lives on, and the next daemon too may be killed.
      it.print(numberedLines(1_500, 10));
      expect(await it.texts(), `after ${steps.at(-1)}, before ${child.stdout}`).toEqual(numbers(0, 1_510));
      await it.rotated();
      expect(await it.texts(), `killed before ${child.stdout}`).toEqual(numbers(0, 1_510));
      expect(it.names().filter((name) => name.endsWith(".tmp"))).toEqual([]);
      expect(statSync(join(it.folder, liveName(it.runId, "stdout"))).blocks * 512).toBeLessThan(64 * KIB);
      if (child.signal === null) break;
      steps.push(child.stdout.trim());
    }
    expect(steps.filter((step) => step === "rename")).toHaveLength(2);
    expect(steps.filter((step) => step === "punch")).toHaveLength(3);
  });

  test("what cannot have holes is not rotated, and that is said once", async () => {
    const it = outputFiles({
      punches: [async () => Promise.reject(new Error("no")), punchByTool(() => "/bin/false")],
    });
    it.print(numberedLines(0, 3_000));
    await it.rotated();
    await it.rotated();
    expect(it.problems).toEqual([expect.stringContaining("output is not rotated: holes cannot be made")]);
    expect(await it.texts()).toEqual(numbers(0, 3_000));
    expect(it.names().filter((name) => name.endsWith(".log"))).toHaveLength(1);
  });

  test("a folder that is about to be removed is let go of, whatever is under way", async () => {
    const it = outputFiles();
    it.print(numberedLines(0, 5_000));
    const over = it.keep();
    await waitFor(() => it.names().length > 1, { what: "the first archive" });
    const inOrder = over();
    await it.rotation.forget(it.folder);
    const left = it.names();
    await inOrder;
    // Had it gone on, or round in circles, there would be more, or no turn for this.
    await new Promise((resolve) => setImmediate(resolve));
    expect(it.names()).toEqual(left);
    expect(it.said).toEqual([]);
  });

  test.runIf(process.getuid?.() === 0)("the archives of another user's agent are the daemon's", async () => {
    const it = outputFiles();
    it.print(numberedLines(0, 1_500));
    chownSync(join(it.folder, liveName(it.runId, "stdout")), 65_534, 65_534);
    await it.rotated();
    expect(await it.texts()).toEqual(numbers(0, 1_500));
    for (const name of it.names().filter((file) => file !== liveName(it.runId, "stdout"))) {
      const { uid, mode } = statSync(join(it.folder, name));
      expect([name, uid, mode & 0o777]).toEqual([name, 0, 0o600]);
    }
  });

  test("a link in the place of an output file is not followed", async () => {
    const it = outputFiles();
    const target = join(it.folder, "precious");
    writeFileSync(target, numberedLines(0, 3_000));
    symlinkSync(target, join(it.folder, liveName(it.runId, "stdout")));
    await it.rotated();
    expect(statSync(target).blocks * 512).toBeGreaterThan(250_000);
    expect(it.names()).toEqual([liveName(it.runId, "stdout"), "precious"].sort());
    expect(await it.texts()).toEqual([]);
  });
});

describe("a full disk", () => {
  const mounted: string[] = [];
  afterEach(() => {
    for (const folder of mounted.splice(0)) spawnSync("umount", [folder]);
  });

  test.runIf(process.getuid?.() === 0)(
    "nothing is lost, and it goes on when there is room again",
    async () => {
      const it = outputFiles();
      const { status } = spawnSync("mount", ["-t", "tmpfs", "-o", "size=400k", "tmpfs", it.folder]);
      expect(status, "a small tmpfs can be mounted").toBe(0);
      mounted.push(it.folder);
      it.print(numberedLines(0, 1_500));
      writeFileSync(join(it.folder, "filler"), Buffer.alloc(208 * KIB));
      await it.rotated();
      expect(it.said).toEqual(["output cannot be put away; it stays in its file and is tried again"]);
      expect(it.names().filter((name) => name.endsWith(".tmp") || /-\d+\.log$/.test(name))).toEqual([]);
      expect(await it.texts()).toEqual(numbers(0, 1_500));
      rmSync(join(it.folder, "filler"));
      await it.rotated();
      expect(await it.texts()).toEqual(numbers(0, 1_500));
      expect(it.names().filter((name) => /-\d+\.log$/.test(name))).toHaveLength(2);
    },
  );
});
