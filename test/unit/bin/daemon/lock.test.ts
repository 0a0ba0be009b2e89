import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { lockHolder, takeLock } from "../../../../bin/daemon/lock.js";

const fixture = (name: string) => fileURLToPath(new URL(`../../../fixtures/bin/${name}`, import.meta.url));
const HOLDER = fixture("lock-holder.ts");
const CHURN = fixture("lock-churn.ts");

let home: string;
let holder: ChildProcess | undefined;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "openstarry-lock-"));
});
afterEach(() => {
  holder?.kill("SIGKILL");
  rmSync(home, { recursive: true, force: true });
});

async function holdElsewhere(program = HOLDER, folder = home): Promise<number> {
  holder = spawn(process.execPath, ["--import", "jiti/register", program, folder], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(holder.stdout as NodeJS.ReadableStream, "data");
  return holder.pid as number;
}

test("a second process is refused with the holder's pid, and gets the lock at once after kill -9", async () => {
  const pid = await holdElsewhere();
  expect(lockHolder(home)).toBe(pid);
  await expect(takeLock(home)).rejects.toMatchObject({
    code: "daemon_running",
    message: expect.stringContaining(`pid ${pid}`),
    data: { pid },
  });
  // The refused attempt has taken nothing away.
  expect(lockHolder(home)).toBe(pid);

  holder?.kill("SIGKILL");
  await once(holder as ChildProcess, "exit");
  expect(lockHolder(home)).toBeUndefined();
  const lock = await takeLock(home);
  expect(lockHolder(home)).toBe(process.pid);
  lock.release();
  lock.release();
  expect(lockHolder(home)).toBeUndefined();
});

test("the holder is found even while other locks are taken and released", async () => {
  const lock = await takeLock(home);
  const others = mkdtempSync(join(home, "others-"));
  await holdElsewhere(CHURN, others);
  const told = Array.from({ length: 2_000 }, () => lockHolder(home));
  expect(told.filter((pid) => pid !== process.pid)).toEqual([]);
  lock.release();
});

test("the lock is one private file, whose existence means nothing", async () => {
  writeFileSync(join(home, "daemon.lock"), "", { mode: 0o600 });
  const lock = await takeLock(home);
  expect(readdirSync(home)).toEqual(["daemon.lock"]);
  lock.release();
  rmSync(join(home, "daemon.lock"));
  const before = process.umask(0);
  try {
    (await takeLock(home)).release();
  } finally {
    process.umask(before);
  }
  expect(lstatSync(join(home, "daemon.lock")).mode & 0o777).toBe(0o600);
});

test.each([
  ["a link", () => symlinkSync(join(home, "elsewhere"), join(home, "daemon.lock"))],
  ["a folder", () => mkdirSync(join(home, "daemon.lock"))],
])("%s in place of the lock is refused and left alone", async (_, lay) => {
  lay();
  await expect(takeLock(home)).rejects.toMatchObject({ code: "home_unusable" });
  expect(readdirSync(home)).toEqual(["daemon.lock"]);
});

test("a file that is not a lock is refused and not overwritten", async () => {
  writeFileSync(join(home, "daemon.lock"), "not a database, but long enough to be looked at".repeat(30));
  await expect(takeLock(home)).rejects.toMatchObject({ code: "home_unusable" });
  expect(lstatSync(join(home, "daemon.lock")).size).toBeGreaterThan(1_000);
});

test("a home that does not exist has no lock holder", () => {
  expect(lockHolder(join(home, "absent"))).toBeUndefined();
});
