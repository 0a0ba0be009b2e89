import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { takeServiceManager } from "../../../../bin/daemon/service-manager.js";
import { openDatagramSender } from "../../../../bin/daemon/unix-datagram.js";

describe("a service manager", () => {
  let sent: string[];
  let answers: ("sent" | "later" | "lost")[];
  const open = () => (text: string) => {
    sent.push(text);
    return answers.shift() ?? "sent";
  };
  beforeEach(() => {
    [sent, answers] = [[], []];
  });
  afterEach(() => vi.useRealTimers());

  test("is found by its socket, and is hidden from children", () => {
    expect(takeServiceManager({ WATCHDOG_USEC: "1" }, open)).toBeUndefined();
    const env = {
      NOTIFY_SOCKET: "/s",
      WATCHDOG_USEC: "2000000",
      WATCHDOG_PID: String(process.pid),
      HOME: "/",
    };
    const manager = takeServiceManager(env, open);
    expect(env).toEqual({ HOME: "/" });
    expect(manager?.env).toEqual({ NOTIFY_SOCKET: "/s", WATCHDOG_USEC: "2000000" });
  });

  test("receives one message with a line per assignment, sent again while its queue is full", async () => {
    const manager = takeServiceManager({ NOTIFY_SOCKET: "/s" }, open);
    answers = ["later", "later"];
    await manager?.tell({ READY: 1, STATUS: "fine\nSTOPPING=1" });
    expect(sent).toEqual(Array(3).fill("READY=1\nSTATUS=fine STOPPING=1"));
    answers = Array(1_000).fill("later");
    await manager?.tell({ READY: 1 });
    expect(answers.length).toBeGreaterThan(900);
  });

  test.each([
    ["this process", String(process.pid), 4],
    ["the main process", undefined, 4],
    ["another process", "1", 0],
  ])("gets two signs of life per watchdog interval if they are asked of %s", async (_, pid, times) => {
    vi.useFakeTimers();
    const env = { NOTIFY_SOCKET: "/s", WATCHDOG_USEC: "2000000", ...(pid ? { WATCHDOG_PID: pid } : {}) };
    takeServiceManager(env, open)?.feedWatchdog();
    await vi.advanceTimersByTimeAsync(4_000);
    expect(sent).toEqual(Array(times).fill("WATCHDOG=1"));
  });

  test("follows a successor only if it is systemd and can be notified", () => {
    const env = (more: object) => ({ NOTIFY_SOCKET: "/s", ...more });
    const unreachable = () => {
      throw new Error("no koffi");
    };
    expect(takeServiceManager(env({}), open)?.followsSuccessors).toBe(false);
    expect(takeServiceManager(env({ INVOCATION_ID: "1" }), open)?.followsSuccessors).toBe(true);
    const mute = takeServiceManager(env({ INVOCATION_ID: "1" }), unreachable);
    expect(mute).toMatchObject({ followsSuccessors: false, problem: expect.stringContaining("no koffi") });
  });
});

describe("a datagram", () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "openstarry-datagram-"));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const RECEIVER = `import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
name = sys.argv[1]
s.bind("\\0" + name[1:] if name[0] == "@" else name)
s.settimeout(20)
print("bound", flush=True)
print(s.recv(1000).decode())`;

  test.each(["a path", "an abstract name"])("reaches %s, and is lost without a receiver", async (kind) => {
    const address = kind === "a path" ? join(dir, "socket") : `@${dir}`;
    expect(openDatagramSender(address)("nobody")).toBe("lost");
    const receiver = spawn("python3", ["-c", RECEIVER, address], { stdio: ["ignore", "pipe", "inherit"] });
    const ended = once(receiver, "close");
    let output = "";
    receiver.stdout.on("data", (chunk) => {
      output += chunk;
      if (output === "bound\n") expect(openDatagramSender(address)("READY=1")).toBe("sent");
    });
    await ended;
    expect(output).toBe("bound\nREADY=1\n");
  });

  test.each(["relative", "vsock:2:1234", `/${"x".repeat(108)}`])("cannot be sent to %s", (address) => {
    expect(() => openDatagramSender(address)).toThrow(/^it is /);
  });
});
