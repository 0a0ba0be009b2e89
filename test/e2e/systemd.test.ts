import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { lockHolder } from "../../bin/daemon/lock.js";
import { type Client, createClient } from "../../plugins/agent-manager-tool/client/client.js";
import { COMMAND, runCli } from "../helpers/daemon.js";
import { ROOT } from "../helpers/package.js";
import { environOf, openFilesOf, seeProcess } from "../helpers/processes.js";
import { noUserManager, startUserManager, type UserManager, writeUnit } from "../helpers/user-manager.js";
import { waitFor } from "../helpers/wait-for.js";

const UNIT = "openstarry-daemon.service";
const SHIPPED = readFileSync(join(ROOT, "examples/systemd", UNIT), "utf8");
const missing = noUserManager();
if (missing !== undefined) console.warn(`the daemon under systemd is not tested: ${missing}`);

/** Starts when a file is there. */
const GATE = `import { existsSync } from "node:fs";
import { definePlugin } from "openstarry-daemon";
export default definePlugin({
  name: "gate",
  apiVersion: 1,
  options: { "~standard": { version: 1, vendor: "test", validate: (value) => ({ value }) } },
  setup: () => ({
    async start() {
      while (!existsSync(process.env.GATE)) await new Promise((resolve) => setTimeout(resolve, 10));
    },
  }),
});`;

describe.skipIf(missing !== undefined)("under systemd", { timeout: 60_000 }, () => {
  let folder: string;
  let manager: UserManager;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "openstarry-systemd-"));
    mkdirSync(join(folder, "bin"));
    symlinkSync(COMMAND, join(folder, "bin/openstarry-daemon"));
    writeUnit(folder, UNIT, SHIPPED);
    manager = await startUserManager(folder);
  });
  afterAll(async () => {
    await manager?.end();
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  });

  let project: string;
  let home: string;
  let client: Client;
  const logOf = () => readFileSync(join(project, "stderr"), "utf8");
  const diagnose = async () => [(await manager.systemctl("status", UNIT)).stdout, logOf(), manager.log()];
  const show = (property: string) => manager.show(UNIT, property);
  const mainPid = async () => Number(await show("MainPID"));
  const cli = (...args: string[]) => runCli(["--home", home, ...args], { cwd: project });
  const configure = (config: Record<string, unknown> = {}) =>
    writeFileSync(
      join(project, "openstarry.config.json"),
      JSON.stringify({
        agents: [{ agent_id: "master", template_id: "Sleeper" }],
        templates: ["./templates"],
        plugins: [["http-api", { port: 0 }], "./gate.mjs"],
        ...config,
      }),
    );

  beforeEach(async () => {
    project = mkdtempSync(join(folder, "project-"));
    home = join(project, "home");
    mkdirSync(join(project, "templates"));
    const sleeper = { template_id: "Sleeper", command: "sleep", args: ["100000"] };
    writeFileSync(join(project, "templates/Sleeper.json"), JSON.stringify(sleeper));
    writeFileSync(join(project, "gate.mjs"), GATE);
    writeFileSync(join(project, "gate"), "");
    configure();
    // What an operator would write with: systemctl edit.
    const dropIn = `[Service]
WorkingDirectory=${project}
Environment=OPENSTARRY_HOME=${home} GATE=${project}/gate
Environment=PATH=${folder}/bin:${dirname(process.execPath)}:/usr/bin:/bin
StandardError=append:${project}/stderr
RestartSec=100ms
WatchdogSec=8
LimitCORE=0
TimeoutStartSec=20
`;
    writeUnit(folder, `${UNIT}.d/test.conf`, dropIn);
    expect(await manager.systemctl("daemon-reload")).toMatchObject({ code: 0 });
    client = createClient({ home });
  });
  afterEach(async () => {
    await client.daemon.stop({ agents: "stop" }).catch(() => {});
    await manager.systemctl("stop", UNIT);
    client.close();
    await waitFor(() => manager.pidsOf(UNIT).length === 0, { what: "the end of all", timeoutMs: 20_000 });
  });

  async function start(): Promise<void> {
    const { code, stderr } = await manager.systemctl("start", UNIT);
    if (code !== 0) throw new Error(`${stderr}\n${(await diagnose()).join("\n")}`);
    await client.agents.wait("master", { for: "ready" });
  }
  async function agent() {
    const { pid, run_id, restarts, containment } = await client.agents.get("master");
    return { pid: pid as number, run_id, restarts, containment };
  }
  const successorOf = (old: number) =>
    waitFor(
      async () => {
        const pid = await mainPid();
        return pid !== old && pid > 0 && (await show("ActiveState")) === "active" && pid;
      },
      { what: "another main process", timeoutMs: 30_000, diagnose },
    );

  test("the unit is active when the daemon is ready, and not before", async () => {
    rmSync(join(project, "gate"));
    const starting = manager.systemctl("start", UNIT);
    await waitFor(() => lockHolder(home), { what: "the daemon to boot", timeoutMs: 20_000, diagnose });
    expect([await show("ActiveState"), await show("SubState")]).toEqual(["activating", "start"]);
    writeFileSync(join(project, "gate"), "");
    expect(await starting).toMatchObject({ code: 0 });
    expect([await show("ActiveState"), await mainPid()]).toEqual(["active", lockHolder(home)]);
    const { url, version } = await client.daemon.status().then((status) => ({ ...status, ...infoOf() }));
    expect(await show("StatusText")).toBe(`Version ${version}, ${url}`);
    expect(logOf()).toContain("the daemon is ready");

    await client.agents.wait("master", { for: "ready" });
    const { pid, containment } = await agent();
    expect(containment).toBe("full");
    const names = Object.keys(environOf(pid));
    expect(names).toContain("OPENSTARRY_AGENT_ID");
    expect(names.filter((name) => /NOTIFY|WATCHDOG|INVOCATION|JOURNAL|SYSTEMD/.test(name))).toEqual([]);
    expect(openFilesOf(pid).slice(3)).toEqual([]);
    const spared = (of: number) => Number(readFileSync(`/proc/${of}/oom_score_adj`, "utf8"));
    expect(spared(pid)).toBeGreaterThan(Math.max(0, spared(await mainPid())));
  });

  test("after kill -9 it is back, and its agents have not noticed", async () => {
    await start();
    const [before, old] = [await agent(), await mainPid()];
    process.kill(old, "SIGKILL");
    expect(await successorOf(old)).toBe(lockHolder(home));
    expect(await agent()).toEqual({ ...before, restarts: 0 });
    expect(await show("NRestarts")).toBe("1");
  });

  test("restart keeps the unit active, with the successor as its main process", async () => {
    await start();
    const [before, old] = [await agent(), await mainPid()];
    const since = await show("ActiveEnterTimestampMonotonic");
    for (const _ of ["once", "again"]) expect(await cli("restart")).toMatchObject({ code: 0, stderr: "" });
    const pid = await mainPid();
    expect([pid, await show("ActiveState")]).toEqual([lockHolder(home), "active"]);
    expect([await show("ActiveEnterTimestampMonotonic"), await show("NRestarts")]).toEqual([since, "0"]);
    expect(await agent()).toEqual({ ...before, restarts: 0 });
    expect(seeProcess(old)).toBeUndefined();
    expect(logOf().match(/the daemon is ready/g)).toHaveLength(3);
    expect(manager.log()).not.toContain("reception only permitted");

    // Its watchdog is fed by the successor; one that hangs is replaced.
    const startedAt = Number(await show("WatchdogTimestampMonotonic"));
    await waitFor(async () => Number(await show("WatchdogTimestampMonotonic")) > startedAt, {
      what: "a sign of life",
      timeoutMs: 20_000,
      diagnose,
    });
    process.kill(pid, "SIGSTOP");
    expect(await successorOf(pid)).toBe(lockHolder(home));
    expect([await show("NRestarts"), await agent()]).toEqual(["1", { ...before, restarts: 0 }]);
  }, 90_000);

  test("a daemon that is killed while it hands over is followed by another that systemd knows", async () => {
    await start();
    const [before, old] = [await agent(), await mainPid()];
    // The successor holds the lock, and waits.
    rmSync(join(project, "gate"));
    await client.daemon.restart();
    const successor = await waitFor(() => lockHolder(home) !== old && lockHolder(home), {
      what: "the successor to take over",
      timeoutMs: 20_000,
      diagnose,
    });
    process.kill(old, "SIGKILL");
    await waitFor(async () => (await show("NRestarts")) !== "0", {
      what: "systemd to notice",
      timeoutMs: 20_000,
    });
    writeFileSync(join(project, "gate"), "");
    await waitFor(async () => (await show("ActiveState")) === "active", {
      what: "the unit to be active again",
      timeoutMs: 30_000,
      diagnose,
    });
    expect([await mainPid(), seeProcess(successor)]).toEqual([lockHolder(home), undefined]);
    expect(await agent()).toEqual({ ...before, restarts: 0 });
  });

  test("a successor that cannot start leaves the unit as it was", async () => {
    await start();
    const [before, old] = [await agent(), await mainPid()];
    configure({ agents: 7 });
    expect((await cli("restart")).code).toBe(2);
    expect([await mainPid(), await show("ActiveState")]).toEqual([old, "active"]);
    expect(await agent()).toEqual(before);
  });

  test("reload takes the config over, or fails with what is wrong with it", async () => {
    await start();
    const old = await mainPid();
    configure({
      agents: ["master", "second"].map((agent_id) => ({ agent_id, template_id: "Sleeper" })),
    });
    expect(await manager.systemctl("reload", UNIT)).toMatchObject({ code: 0 });
    expect(await client.agents.wait("second", { for: "ready" })).toMatchObject({ state: "running" });
    configure({ agents: 7 });
    expect((await manager.systemctl("reload", UNIT)).code).not.toBe(0);
    expect([await mainPid(), await show("ActiveState")]).toEqual([old, "active"]);
    expect(logOf()).toMatch(/^error: .*agents/m);
  });

  test("stop ends the agents or keeps them, as the config says", async () => {
    configure({ on_daemon_stop: "keep" });
    await start();
    const before = await agent();
    expect(await manager.systemctl("stop", UNIT)).toMatchObject({ code: 0 });
    expect([await show("ActiveState"), await show("Result")]).toEqual(["inactive", "success"]);
    expect([lockHolder(home), seeProcess(before.pid)?.pid]).toEqual([undefined, before.pid]);
    await start();
    expect(await agent()).toEqual(before);

    configure({ on_daemon_stop: "stop" });
    expect(await manager.systemctl("reload", UNIT)).toMatchObject({ code: 0 });
    expect(await manager.systemctl("stop", UNIT)).toMatchObject({ code: 0 });
    expect([await show("ActiveState"), await show("Result")]).toEqual(["inactive", "success"]);
    expect(manager.pidsOf(UNIT)).toEqual([]);
  });

  test("the command's own stop is no failure that it would be started again for", async () => {
    await start();
    expect(await cli("stop")).toMatchObject({ code: 0 });
    await waitFor(async () => (await show("ActiveState")) === "inactive", { what: "its end", diagnose });
    expect([await show("Result"), await show("NRestarts")]).toEqual(["success", "0"]);
  });

  test("with a config that is not valid it is not tried again", async () => {
    configure({ agents: 7 });
    expect((await manager.systemctl("start", UNIT)).code).not.toBe(0);
    expect([await show("ActiveState"), await show("NRestarts"), await show("ExecMainStatus")]).toEqual([
      "failed",
      "0",
      "2",
    ]);
    await manager.systemctl("reset-failed", UNIT);
  });

  function infoOf(): { url: string } {
    return JSON.parse(readFileSync(join(home, "daemon.json"), "utf8"));
  }
});
