import { execFileSync } from "node:child_process";
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { readDaemonInfo, removeDaemonInfo, writeDaemonInfo } from "../../../../bin/daemon/daemon-info.js";
import {
  isAgentOf,
  prepareHome,
  readPrivateFile,
  resolveHome,
  writePrivateFile,
} from "../../../../bin/daemon/home.js";
import { openLogFile } from "../../../../bin/daemon/log-file.js";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "openstarry-home-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const modeOf = (path: string) => (lstatSync(path).mode & 0o7777).toString(8);
const unusable = (reason: RegExp) =>
  expect.objectContaining({ code: "home_unusable", message: expect.stringMatching(reason) });
const isRoot = process.geteuid?.() === 0;

describe("resolveHome", () => {
  test.each([
    ["/given", { OPENSTARRY_HOME: "/variable" }, "/given"],
    [undefined, { OPENSTARRY_HOME: "/variable" }, "/variable"],
    [undefined, { OPENSTARRY_HOME: "" }, join(homedir(), ".openstarry/daemon")],
    ["relative", {}, join(process.cwd(), "relative")],
  ])("%s with %o is %s", (option, env, expected) => {
    expect(resolveHome(option, env)).toBe(expected);
  });
});

describe("prepareHome", () => {
  test("creates every missing level with 0700, whatever the umask", () => {
    for (const umask of [0o000, 0o077, 0o777]) {
      const home = join(dir, `umask-${umask}`, "openstarry", "daemon");
      const before = process.umask(umask);
      try {
        prepareHome(home);
      } finally {
        process.umask(before);
      }
      expect([home, join(home, ".."), join(home, "../..")].map(modeOf)).toEqual(["700", "700", "700"]);
    }
  });

  test("takes the permission to read from others", () => {
    chmodSync(dir, 0o755);
    prepareHome(dir);
    expect(modeOf(dir)).toBe("700");
  });

  test.each(["777", "770", "720"])("refuses a folder of mode %s and does not change it", (mode) => {
    chmodSync(dir, Number.parseInt(mode, 8));
    expect(() => prepareHome(dir)).toThrow(unusable(/others can write to it/));
    expect(modeOf(dir)).toBe(mode);
  });

  test("refuses a symbolic link", () => {
    mkdirSync(join(dir, "real"), { mode: 0o700 });
    symlinkSync(join(dir, "real"), join(dir, "link"));
    expect(() => prepareHome(join(dir, "link"))).toThrow(unusable(/symbolic link/));
  });

  test("refuses a file, and a folder below a file", () => {
    writeFileSync(join(dir, "file"), "");
    expect(() => prepareHome(join(dir, "file"))).toThrow(unusable(/not a folder/));
    expect(() => prepareHome(join(dir, "file", "below"))).toThrow(unusable(/ENOTDIR/));
  });

  test.runIf(isRoot)("refuses a folder of another user", () => {
    execFileSync("chown", ["65534", dir]);
    expect(() => prepareHome(dir)).toThrow(unusable(/belongs to uid 65534, not to uid 0/));
  });
});

describe("private files", () => {
  test("are 0600 whatever the umask, and leave no temporary file", () => {
    const path = join(dir, "secret");
    const before = process.umask(0o777);
    try {
      writePrivateFile(path, "one");
      writePrivateFile(path, "two");
    } finally {
      process.umask(before);
    }
    expect([modeOf(path), readFileSync(path, "utf8"), readdirSync(dir)]).toEqual(["600", "two", ["secret"]]);
    expect(readPrivateFile(path)).toBe("two");
  });

  test("replace a link and leave its target untouched", () => {
    writeFileSync(join(dir, "target"), "precious");
    symlinkSync(join(dir, "target"), join(dir, "secret"));
    writePrivateFile(join(dir, "secret"), "new");
    expect(lstatSync(join(dir, "secret")).isFile()).toBe(true);
    expect(readFileSync(join(dir, "target"), "utf8")).toBe("precious");
  });

  test("are not read if they are links, open to others, pipes or too large", () => {
    const path = join(dir, "secret");
    expect(readPrivateFile(path)).toBeUndefined();
    writeFileSync(join(dir, "target"), "x", { mode: 0o600 });
    symlinkSync(join(dir, "target"), path);
    expect(() => readPrivateFile(path)).toThrow(unusable(/symbolic link/));
    rmSync(path);
    writeFileSync(path, "x", { mode: 0o644 });
    chmodSync(path, 0o640);
    expect(() => readPrivateFile(path)).toThrow(unusable(/mode 640/));
    rmSync(path);
    execFileSync("sh", ["-c", 'mkfifo -m 600 "$0"', path]);
    expect(() => readPrivateFile(path)).toThrow(unusable(/not a regular file/));
    rmSync(path);
    writeFileSync(path, "x".repeat(100_000), { mode: 0o600 });
    expect(() => readPrivateFile(path)).toThrow(unusable(/too large/));
  });

  test.runIf(isRoot)("are not read if they belong to another user", () => {
    writePrivateFile(join(dir, "secret"), "x");
    execFileSync("chown", ["65534", join(dir, "secret")]);
    expect(() => readPrivateFile(join(dir, "secret"))).toThrow(unusable(/belongs to uid 65534/));
  });
});

describe("daemon.json", () => {
  const info = { pid: 4_242, started_at: "2026-01-01T00:00:00.000Z", version: "0.1.0", port: 5050 };

  test("is read as it was written, and is absent once removed", () => {
    writeDaemonInfo({ ...info, home: dir });
    expect(readDaemonInfo(dir)).toEqual({ ...info, home: dir });
    removeDaemonInfo(dir);
    removeDaemonInfo(dir);
    expect(readDaemonInfo(dir)).toBeUndefined();
  });

  test.each([
    ["", "nothing"],
    ["{", "half of it"],
    ["null", "null"],
    ['{"pid":1,"started_at":"","version":"","home":""}', "pid 1"],
    ['{"pid":-1,"started_at":"","version":"","home":""}', "a negative pid"],
    ['{"pid":"7","started_at":"","version":"","home":""}', "a pid in quotes"],
    ['{"pid":7,"started_at":"","version":"","home":"","socket":5}', "a socket that is a number"],
  ])("is not read from %s (%s)", (content) => {
    writePrivateFile(join(dir, "daemon.json"), content);
    expect(readDaemonInfo(dir)).toBeUndefined();
  });
});

describe("daemon.log", () => {
  test("is refused if it is a link or a pipe", () => {
    const path = join(dir, "daemon.log");
    symlinkSync(join(dir, "elsewhere"), path);
    expect(() => openLogFile(dir)).toThrow(unusable(/ELOOP/));
    expect(readdirSync(dir)).toEqual(["daemon.log"]);
    rmSync(path);
    execFileSync("sh", ["-c", 'mkfifo "$0"', path]);
    expect(() => openLogFile(dir)).toThrow(unusable(/cannot be written/));
  });
});

test("a process counts as an agent only of the home that holds its token", () => {
  const base = mkdtempSync(join(tmpdir(), "openstarry-agent-of-"));
  try {
    const [own, other] = [join(base, "own"), join(base, "other")];
    mkdirSync(join(own, "agents", "a"), { recursive: true });
    mkdirSync(other);
    const token = join(own, "agents", "a", "token");
    writeFileSync(token, "secret");
    symlinkSync(own, join(base, "link"));
    const env = { OPENSTARRY_TOKEN_FILE: token };
    expect(isAgentOf(own, env)).toBe(true);
    expect(isAgentOf(join(base, "link"), env)).toBe(true);
    expect(isAgentOf(other, env)).toBe(false);
    expect(isAgentOf(own, {})).toBe(false);
  } finally {
    rmSync(base, { recursive: true });
  }
});
