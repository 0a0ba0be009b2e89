import { execFile } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../../../../core/index.js";
import { createStatusThrottle } from "../../../../plugins/kit/throttle-status.js";
import { type Datagram, loadDatagrams } from "../../../../plugins/probe-notify/datagrams.js";
import probeNotify from "../../../../plugins/probe-notify/index.js";
import { parseMessage } from "../../../../plugins/probe-notify/message.js";
import { createNotifyProbe } from "../../../../plugins/probe-notify/notify-probe.js";
import { ownFolder } from "../../../../plugins/probe-notify/own-folder.js";
import { createNotifySockets, type NotifySockets } from "../../../../plugins/probe-notify/sockets.js";
import healthChecker from "../../../../plugins/probe-runner/index.js";
import { memoryJournalState, memorySpawner } from "../../../contract/memory-plugins.js";
import { createRecorder } from "../../../contract/recorder.js";
import { createTestKernel } from "../../../contract/test-kernel.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";
import { watchRun } from "../../../helpers/probe-run.js";
import { missingProgram } from "../../../helpers/programs.js";
import { waitFor } from "../../../helpers/wait-for.js";

const RUN = "run-of-a";
/** What is said first of a run that has not said it. */
const WAITING = "starting: READY=1 has not come";
const OWN_UID = process.getuid?.() ?? 0;

describe("messages", () => {
  const nothing = { ready: false, stopping: false };

  it.each<[string, object]>([
    ["READY=1", { ready: true }],
    ["READY=0", { ready: false }],
    ["READY=1\nSTATUS=a=b\nUNKNOWN=1", { ready: true, status: "a=b" }],
    ["STATUS=a\nSTATUS=b", { status: "b" }],
    ["STOPPING=1", { stopping: true }],
    ["WATCHDOG=1", { watchdog: "alive" }],
    ["WATCHDOG=trigger", { watchdog: "trigger" }],
    ["WATCHDOG=later", { watchdog: undefined }],
    ["EXTEND_TIMEOUT_USEC=1500000", { extendMs: 1_500 }],
    ["EXTEND_TIMEOUT_USEC=-1", { extendMs: undefined }],
    ["MAINPID=1", { mainPid: "1" }],
    ["RELOADING=1\nBARRIER=1\nFDSTORE=1", {}],
    ["", {}],
    ["\0\n==\n=1\nREADY", {}],
  ])("%j", (text, expected) => {
    expect(parseMessage(text)).toMatchObject({ ...nothing, ...expected });
  });

  it("cuts a status to what the API takes", () => {
    expect(parseMessage(`STATUS=${"x".repeat(4_000)}`).status).toHaveLength(1_000);
  });
});

describe("what a run says", () => {
  function listening({ again = false } = {}) {
    const clock = createFakeClock();
    const { log, logged } = createRecorder();
    const statuses: string[] = [];
    const notify = createNotifyProbe({
      clock,
      log,
      status: (agentId, runId, status) => void statuses.push(`${agentId} ${runId} ${status}`),
      startTimeoutMs: () => 60_000,
    });
    notify.add(RUN, { agentId: "a", uid: 12_345, again });
    const say = (text: string | undefined, from: Partial<Datagram> = {}) =>
      notify.receive(RUN, { text, pid: 0, uid: 12_345, ...from });
    return {
      clock,
      logged,
      statuses,
      notify,
      say,
      watch: (role: "readiness" | "liveness", options = {}) => watchRun(notify.probe, role, options),
    };
  }

  it("is ready by READY=1, also by one that came before anybody watched", () => {
    const it = listening();
    const early = it.watch("readiness");
    it.say("STATUS=loading");
    expect(early.said).toEqual([WAITING]);
    it.say("READY=1");
    expect(early.said).toEqual([WAITING, "ready"]);
    expect(it.watch("readiness").said).toEqual(["ready"]);
    expect(it.statuses).toEqual([`a ${RUN} loading`]);
  });

  it("asks for more time", () => {
    const it = listening();
    const { said } = it.watch("readiness");
    it.say("EXTEND_TIMEOUT_USEC=90000000");
    expect(said).toEqual([WAITING, "starting: within 90000"]);
  });

  it("a ping in time keeps it healthy; none within interval times misses is unhealthy", async () => {
    const it = listening();
    const { said } = it.watch("liveness", { interval: "10s", misses: 3 });
    await it.clock.advance(29_999);
    it.say("WATCHDOG=1");
    await it.clock.advance(29_999);
    // Nothing but a ping is one.
    it.say("STATUS=busy\nREADY=1");
    expect(said).toEqual(["healthy"]);
    await it.clock.advance(1);
    expect(said).toEqual(["healthy", "unhealthy: no WATCHDOG=1 for 30s (3 × 10s)"]);
  });

  it("WATCHDOG=trigger is unhealthy at once; STOPPING=1 gives as long as a ping", async () => {
    const it = listening();
    const { said } = it.watch("liveness", { interval: "10s", misses: 1 });
    await it.clock.advance(9_999);
    it.say("STOPPING=1");
    await it.clock.advance(9_999);
    expect(said).toEqual(["healthy"]);
    it.say("WATCHDOG=trigger");
    expect(said.at(-1)).toBe("unhealthy: it said so itself, with WATCHDOG=trigger");
  });

  it.each<[string, string | undefined, Partial<Datagram>, RegExp]>([
    ["by a stranger", "READY=1", { uid: 12_346 }, /its sender is of uid 12346/],
    ["by nobody knows whom", "READY=1", { uid: -1 }, /its sender is of uid -1/],
    ["that is too long", undefined, {}, /longer than 4096 bytes/],
  ])("does not take a message %s, and says so once", (_, text, from, why) => {
    const it = listening();
    const { said } = it.watch("readiness");
    for (let count = 0; count < 10; count++) it.say(text, from);
    expect(said).toEqual([WAITING]);
    expect(it.logged.map(({ level }) => level)).toEqual(["warn"]);
    expect(it.logged[0]?.message).toMatch(why);
  });

  it("keeps its process whatever MAINPID says", () => {
    const it = listening();
    const { said } = it.watch("readiness");
    it.say("MAINPID=1\nREADY=1");
    expect(said).toEqual([WAITING, "ready"]);
    expect(it.logged[0]?.message).toMatch(/MAINPID/);
  });

  describe("to a daemon that was away", () => {
    it("a ping tells that it is ready, as does half of its time", async () => {
      for (const heard of [true, false]) {
        const it = listening({ again: true });
        const { said } = it.watch("readiness");
        await it.clock.advance(29_999);
        expect(said).toEqual([WAITING]);
        if (heard) it.say("WATCHDOG=1");
        else await it.clock.advance(1);
        expect(said).toEqual([WAITING, "ready"]);
      }
    });

    it("a run that began under this daemon gets no such credit", async () => {
      const it = listening();
      const { said } = it.watch("readiness");
      it.say("WATCHDOG=1");
      await it.clock.advance(600_000);
      expect(said).toEqual([WAITING]);
    });
  });

  it("leaves no timer and no ear when the watch is over", () => {
    const it = listening({ again: true });
    const runs = [it.watch("readiness"), it.watch("liveness")];
    for (const { stop } of runs) stop();
    expect(it.clock.pending()).toBe(0);
    it.say("READY=1\nWATCHDOG=trigger");
    expect(runs.flatMap(({ said }) => said)).toEqual([WAITING]);
  });
});

it("of many words the last counts, one a second", async () => {
  const clock = createFakeClock();
  const passed: string[] = [];
  const pass = (_: string, runId: string, { text }: { text: string }) => void passed.push(`${runId} ${text}`);
  const { isTime, end } = createStatusThrottle(clock, 1_000, pass);
  const say = (agentId: string, runId: string, text: string) =>
    isTime(agentId, runId, { text }) && pass(agentId, runId, { text });
  for (let index = 0; index < 100; index++) say("a", "1", `word ${index}`);
  say("b", "2", "mine");
  expect(passed).toEqual(["1 word 0", "2 mine"]);
  await clock.advance(1_000);
  expect(passed).toEqual(["1 word 0", "2 mine", "1 word 99"]);
  await clock.advance(5_000);
  say("a", "1", "late");
  say("a", "1", "too late");
  end("1");
  await clock.advance(5_000);
  expect(passed.slice(3)).toEqual(["1 late"]);
  expect(clock.pending()).toBe(0);
});

describe("the folder of sockets", () => {
  const user = { isRoot: false, runFolder: "/run/user/1000" };

  it("is nowhere that another user could make it first", () => {
    expect(ownFolder("/root/home", { ...user, isRoot: true })).toMatch(
      /^\/run\/openstarry-notify-[0-9a-f]{12}$/,
    );
    expect(ownFolder("/home/a", user)).toBe("/home/a/notify");
    // 107 bytes with a run's id.
    const longest = `/${"x".repeat(62)}`;
    expect(ownFolder(longest, user)).toBe(`${longest}/notify`);
    expect(ownFolder(`${longest}x`, user)).toMatch(/^\/run\/user\/1000\/openstarry-notify-[0-9a-f]{12}$/);
  });
});

const native = loadDatagrams();
const python = missingProgram("python3", "python3");
if (!native) console.warn("left out: there is no koffi for this machine");

describe.skipIf(!native || python)("sockets", () => {
  let folder: string;
  let sockets: NotifySockets;
  let complaints: ReturnType<typeof createRecorder>;
  const heard: Datagram[] = [];

  beforeEach(() => {
    const own = mkdtempSync(join(tmpdir(), "openstarry-notify-"));
    chmodSync(own, 0o711);
    folder = join(own, "sockets");
    complaints = createRecorder();
    if (native) sockets = createNotifySockets({ clock: systemClock, log: complaints.log, native, folder });
    heard.length = 0;
  });
  afterEach(() => {
    sockets.release();
    rmSync(join(folder, ".."), { recursive: true, force: true });
  });

  const open = (uid = OWN_UID) => sockets.open(RUN, uid, (datagram) => void heard.push(datagram));

  /** Runs Python that has a socket `s` connected to the run's; answers what it printed. */
  async function speak(script: string, options: { env?: Record<string, string> } = {}): Promise<string> {
    const connect = `import array, os, socket, sys, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
`;
    const { stdout } = await promisify(execFile)("python3", ["-c", connect + script, sockets.pathOf(RUN)], {
      env: { ...process.env, ...options.env },
    });
    return stdout.trim();
  }
  const CONNECT = "s.connect(sys.argv[1])\n";

  it("hands on what arrives, with who sent it, at once", async () => {
    open();
    await speak(`${CONNECT}s.send(b"READY=1")\nprint(os.getpid())`);
    const got = await waitFor(() => heard[0], { what: "the message" });
    expect(got).toMatchObject({ text: "READY=1", uid: OWN_UID });
    expect(got.pid).toBeGreaterThan(1);
  });

  it("lets only the agent's user in, whatever the umask", async () => {
    const umask = process.umask(0o077);
    open();
    process.umask(umask);
    expect(statSync(sockets.pathOf(RUN)).mode & 0o777).toBe(0o600);
    expect(statSync(folder).mode & 0o777).toBe(0o711);
    if (OWN_UID !== 0) return;
    const asNobody = `os.setuid(65534)
try:
    s.connect(sys.argv[1])
    s.send(b"READY=1")
    print("sent")
except OSError as error: print(error.strerror)`;
    open();
    expect(await speak(asNobody)).toBe("Permission denied");
    open(65_534);
    expect(await speak(asNobody)).toBe("sent");
    await waitFor(() => heard[0]?.uid === 65_534, { what: "the message" });
  });

  it("throws away what is too long, and closes descriptors that come along", async () => {
    open();
    const before = readdirSync("/proc/self/fd").length;
    await speak(`${CONNECT}s.send(b"x" * 5000)
fds = array.array("i", [0] * 200)
for _ in range(5): s.sendmsg([b"FDSTORE=1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])`);
    await waitFor(() => heard.length === 6, { what: "all messages" });
    expect(heard.map(({ text }) => text)).toEqual([undefined, ...Array(5).fill("FDSTORE=1")]);
    expect(heard.every(({ uid }) => uid === OWN_UID)).toBe(true);
    expect(readdirSync("/proc/self/fd")).toHaveLength(before);
  });

  it("makes who floods it wait, and nobody else", async () => {
    open();
    const other: Datagram[] = [];
    sockets.open("other", OWN_UID, (datagram) => void other.push(datagram));
    const flood = speak(`${CONNECT}begin = time.monotonic()
for _ in range(300): s.send(b"WATCHDOG=1")
print(time.monotonic() - begin)`);
    await waitFor(() => heard.length > 0, { what: "the flood" });
    await speak(`s.connect(sys.argv[1][:-len("${RUN}")] + "other")\ns.send(b"READY=1")`);
    await waitFor(() => other.length === 1, { what: "the other's word" });
    // Fifty in a tenth of a second, and some fit into the queue.
    expect(Number(await flood)).toBeGreaterThan(0.3);
    await waitFor(() => heard.length === 300, { what: "all of the flood" });
  });

  it("refuses whose process is another run's, and no other", async () => {
    open();
    const { log, logged } = createRecorder();
    const notify = createNotifyProbe({ clock: systemClock, log, status: () => {}, startTimeoutMs: () => 1 });
    notify.add(RUN, { agentId: "a", uid: OWN_UID, again: false });
    const { said } = watchRun(notify.probe, "readiness");
    sockets.open(RUN, OWN_UID, (datagram) => {
      heard.push(datagram);
      notify.receive(RUN, datagram);
    });
    // It stays until it was looked at.
    const sender = (runId: string, count: number) =>
      Promise.all([
        speak(
          `${CONNECT}s.send(b"READY=1")\nsys.stdin.read()`.replace("sys.stdin.read()", "time.sleep(0.5)"),
          {
            env: { OPENSTARRY_RUN_ID: runId },
          },
        ),
        waitFor(() => heard.length === count, { what: "the message" }),
      ]);
    await sender("another-run", 1);
    expect(said).toEqual([WAITING]);
    expect(logged[0]?.message).toMatch(/its sender, process \d+, is another agent's/);
    await sender(RUN, 2);
    expect(said).toEqual([WAITING, "ready"]);
  });

  it("the next daemon binds the same path; the agent sees that nobody was there meanwhile", async () => {
    open();
    const path = sockets.pathOf(RUN);
    sockets.release();
    expect(existsSync(path)).toBe(true);
    expect(await speak(`try: ${CONNECT.trim()}\nexcept OSError as error: print(error.strerror)`)).toBe(
      "Connection refused",
    );
    open();
    await speak(`${CONNECT}s.send(b"WATCHDOG=1")`);
    await waitFor(() => heard.length === 1, { what: "the message" });
    sockets.sweep(new Set());
    expect(readdirSync(folder)).toEqual([]);
  });

  it("goes on past what it cannot clear away, and says so", () => {
    mkdirSync(join(folder, "a-folder"), { recursive: true, mode: 0o711 });
    writeFileSync(join(folder, "left-over"), "");
    sockets.sweep(new Set());
    expect(readdirSync(folder)).toEqual(["a-folder"]);
    expect(complaints.logged.map(({ message }) => message)).toEqual([
      "what lies among the sockets of agents cannot be removed",
    ]);
  });

  it("clears nothing away in a folder that is not its own", () => {
    mkdirSync(folder);
    writeFileSync(join(folder, "of-somebody"), "");
    if (OWN_UID === 0) chownSync(folder, 65_534, 65_534);
    else chmodSync(folder, 0o777);
    sockets.sweep(new Set());
    expect(readdirSync(folder)).toEqual(["of-somebody"]);
    expect(complaints.logged).toMatchObject([{ level: "warn" }]);
  });

  it("listens to no signal when it has no socket", () => {
    const listeners = process.listenerCount("SIGURG");
    open();
    expect(process.listenerCount("SIGURG")).toBe(listeners + 1);
    sockets.close(RUN);
    expect(process.listenerCount("SIGURG")).toBe(listeners);
    expect(existsSync(sockets.pathOf(RUN))).toBe(false);
  });

  it("refuses a folder that others can change, and a path that does not fit", () => {
    mkdirSync(folder);
    chmodSync(folder, 0o777);
    expect(() => open()).toThrow(/can be changed by others/);
    const long = join(folder, "..", "x".repeat(80));
    if (!native) return;
    const far = createNotifySockets({ clock: systemClock, log: complaints.log, native, folder: long });
    expect(() => far.open("0".repeat(36), OWN_UID, () => {})).toThrow(/too long for a socket/);
  });

  it("names an adopted run that it cannot hear for as long as that lives, and starts", async () => {
    const operator = { actor: "operator", reason: "a test" };
    const shared = {
      state: memoryJournalState(),
      spawner: memorySpawner(),
      templates: { Heard: { liveness: { type: "notify" } } },
    };
    const daemon = () => createTestKernel({ ...shared, plugins: [healthChecker(), probeNotify({ folder })] });
    const first = daemon();
    await first.start();
    await first.control.create({ agent_id: "a", template_id: "Heard" }, operator);
    await first.agents.wait("a", "ready");
    await first.stop({ agents: "keep", reason: "a restart" });
    chmodSync(folder, 0o777);
    const later = daemon();
    await later.start();
    const shown = () => later.plugins().find(({ name }) => name === "probe-notify");
    expect(shown()?.problem).toMatch(/^agent a cannot be heard: .* can be changed by others/);
    await later.control.stop("a", operator);
    await waitFor(() => shown()?.state === "started", { what: "the plugin to recover" });
    await later.stop({ agents: "keep", reason: "the test is over" });
  });
});
