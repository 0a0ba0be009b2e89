import { existsSync } from "node:fs";
import { join } from "node:path";

/**
 * Why a program of this machine is missing, for `test.skipIf`; `undefined` when it is there. With
 * `CI_REQUIRE_SERVICES=1` that it is missing is an error instead: there the test must not be left out.
 */
export function missingProgram(name: string, debianPackage: string): string | undefined {
  const folders = (process.env["PATH"] ?? "").split(":");
  if (folders.some((folder) => existsSync(join(folder, name)))) return undefined;
  const missing = `there is no ${name} in PATH (Debian package ${debianPackage})`;
  if (process.env["CI_REQUIRE_SERVICES"] === "1") throw new Error(missing);
  console.warn(`left out: ${missing}`);
  return missing;
}
