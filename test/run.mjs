// Runs every check in order and ends with one line: N passed, N failed. Each check counts as one, and
// so does each test. A check that fails does not keep the later ones from being seen.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const scratch = mkdtempSync(join(tmpdir(), "openstarry-checks-"));
const report = join(scratch, "vitest.json");

const local = ["npx", "--no-install"];
const checks = [
  ["format and lint", [...local, "biome", "ci", "--error-on-warnings", "."]],
  ["the dependency rule", ["node", "test/checks/dependency-rule.mjs"]],
  ["types", [...local, "tsc", "-p", "tsconfig.json"]],
  ["unused code", [...local, "knip"]],
  ["build", ["npm", "run", "--silent", "build"]],
  [
    "tests",
    [...local, "vitest", "run", "--reporter=default", "--reporter=json", `--outputFile.json=${report}`],
  ],
];

let passed = 0;
let failed = 0;
for (const [name, [command, ...args]] of checks) {
  console.log(`\n== ${name}`);
  const { status } = spawnSync(command, args, { stdio: "inherit" });
  if (status === 0) passed += 1;
  else {
    failed += 1;
    console.log(`== ${name}: failed`);
  }
}
try {
  const { numPassedTests, numFailedTests } = JSON.parse(readFileSync(report, "utf8"));
  passed += numPassedTests;
  failed += numFailedTests;
} catch {
  console.log("== the tests left no report");
  failed += 1;
}
rmSync(scratch, { recursive: true, force: true });
console.log(`\n${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
