import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const PROBE = fileURLToPath(new URL("../../../fixtures/bin/inherited-fds.ts", import.meta.url));

test("inherited descriptors are closed, except those that were handed over and the process's own", () => {
  const script = `exec "${process.execPath}" --import jiti/register "${PROBE}" 40</dev/null 41</dev/null`;
  const { stdout, stderr } = spawnSync("bash", ["-c", script], { encoding: "utf8" });
  expect(stderr).toBe("");
  expect(JSON.parse(stdout)).toEqual({
    before: [40, 41],
    closed: [40],
    after: [41],
    ownIsOpen: true,
    inherited: [41],
  });
});
