import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { loadPosixSpawn } from "../../../../plugins/spawner-process/process/posix-spawn.js";

const PROBE = fileURLToPath(new URL("../../../fixtures/bin/low-descriptors.ts", import.meta.url));

test.runIf(loadPosixSpawn()).each([
  ["as they are", ["3", "4"]],
  ["crossed", ["4", "3"]],
])("descriptors that lie where others have to go are handed over, %s", (_, order) => {
  const folder = mkdtempSync(join(tmpdir(), "openstarry-fds-"));
  const files = ["a", "b"].map((name) => join(folder, name));
  const fds = files.map((file) => openSync(file, "w"));
  const { status, stderr } = spawnSync(process.execPath, ["--import", "jiti/register", PROBE, ...order], {
    stdio: ["ignore", "ignore", "pipe", ...fds],
    encoding: "utf8",
  });
  for (const fd of fds) closeSync(fd);
  expect([status, stderr]).toEqual([0, ""]);
  const [a, b] = files.map((file) => readFileSync(file, "utf8"));
  const [three = "", four = ""] = order[0] === "3" ? [a, b] : [b, a];
  expect([three, four.split("\n")[0]]).toEqual(["three\n", "four"]);
  // Standard ones, these two, and the one that ls reads by: none of the detour. What the test itself was
  // started with has high numbers.
  const open = (four.match(/^\d+$/gm) ?? []).map(Number).filter((fd) => fd < 40);
  expect(open.sort((x, y) => x - y)).toEqual([0, 1, 2, 3, 4, 5]);
  rmSync(folder, { recursive: true });
});
