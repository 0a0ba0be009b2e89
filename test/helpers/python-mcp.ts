import { spawnSync } from "node:child_process";
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The public Python SDK of the Model Context Protocol, at the version that the tests were written for. */
const REQUIREMENT = "mcp==2.3.0";
const INSTALL_TIMEOUT_MS = 180_000;

/**
 * A Python with the MCP SDK in an environment of its own, made once per machine; or why there is none.
 * With `CI_REQUIRE_SERVICES=1` that is an error instead: there the test must not be left out.
 */
export function pythonWithMcp(): { python: string } | { missing: string } {
  const folder = join(tmpdir(), `openstarry-test-${REQUIREMENT.replace("==", "-")}-uid${process.getuid?.()}`);
  const python = join(folder, "bin", "python");
  const done = join(folder, "installed");
  if (existsSync(done)) return { python };
  rmSync(folder, { recursive: true, force: true });
  const problem =
    run("python3", ["-m", "venv", folder]) ?? run(python, ["-m", "pip", "install", "--quiet", REQUIREMENT]);
  if (problem === undefined) {
    writeFileSync(done, "");
    return { python };
  }
  const missing = `no Python with ${REQUIREMENT}: ${problem}`;
  if (process.env["CI_REQUIRE_SERVICES"] === "1") throw new Error(missing);
  return { missing };
}

function run(command: string, args: readonly string[]): string | undefined {
  const { status, error, stderr } = spawnSync(command, args, {
    encoding: "utf8",
    timeout: INSTALL_TIMEOUT_MS,
  });
  if (status === 0) return undefined;
  return error?.message ?? stderr.trim().slice(-500);
}
