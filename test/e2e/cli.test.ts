import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { identify } from "../../bin/daemon/process-identity.js";
import { COMMAND, runCli, startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { waitFor } from "../helpers/wait-for.js";

const Sleeper = { template_id: "Sleeper", command: "sleep", args: ["1000"] };
const Worker = {
  template_id: "Worker",
  description: "Prints, leaves a result, ends with a code.",
  command: "bash",
  args: [
    "-c",
    'printf "plain\\n\\033]0;owned\\007\\xff\\n"; printf %s "$1" > "$OPENSTARRY_RESULT_FILE"; exit "$0"',
    "{{params.code}}",
    "{{params.text}}",
  ],
  params: { code: { type: "integer", default: 0 }, text: { type: "string", default: "done" } },
  restart: { policy: "never" },
};
const master = { agent_id: "master", template_id: "Sleeper" };

describe("a running daemon", () => {
  let daemon: TestDaemon;
  beforeAll(async () => {
    daemon = await startDaemon({ config: { agents: [master] }, templates: [Sleeper, Worker] });
  });
  afterAll(() => daemon?.stop());

  test("status shows its address and the states of its agents", async () => {
    const { code, stdout } = await daemon.cli(["status", "--json"]);
    const info = JSON.parse(readFileSync(join(daemon.home, "daemon.json"), "utf8"));
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      ...info,
      running: true,
      state: "ready",
      agents: { running: 1 },
    });
    expect(info).toMatchObject({
      pid: daemon.pid(),
      home: daemon.home,
      config: daemon.config,
      socket: join(daemon.home, "daemon.sock"),
    });
    expect((await daemon.cli(["status"])).stdout).toContain(`pid      ${daemon.pid()}`);
  });

  test("a second daemon on the same home exits with 5 and names the first one", async () => {
    const second = await daemon.cli(["start", "--port", "0"]);
    expect([second.code, second.stdout]).toEqual([5, ""]);
    expect(second.stderr).toContain(`(pid ${daemon.pid()})`);
    expect(second.stderr).toContain("hint: ");
    const foreground = await daemon.cli(["start", "--foreground", "--port", "0"]);
    expect([foreground.code, foreground.stderr]).toEqual([5, second.stderr]);
  });

  test("run --wait prints the result and exits with the agent's code", async () => {
    const done = await daemon.cli(["run", "Worker", "--id", "w-done", "--param", "text=7", "--wait"]);
    expect([done.code, done.stdout]).toEqual([0, "7"]);
    expect(done.stderr).toContain("w-done exited with code 0");
    const failed = await daemon.cli([
      "run",
      "Worker",
      "--id",
      "w-failed",
      "--param",
      "code=3",
      "--wait",
      "--json",
    ]);
    expect(failed.code).toBe(3);
    expect(JSON.parse(failed.stdout)).toMatchObject({
      agent: { agent_id: "w-failed", state: "exited", last_exit: { kind: "exited", code: 3 } },
      result: "done",
    });
  });

  test("run reads a parameter from a file, and takes a command word by word", async () => {
    writeFileSync(join(daemon.project, "question"), "two\nlines, -- and $HOME");
    const result = await daemon.cli(["run", "Worker", "--param", "text=@question", "--wait"]);
    expect(result.stdout).toBe("two\nlines, -- and $HOME");
    const words = ["printf", "%s|", "--id", "$HOME", "a b", "{{params.x}}", "--"];
    const command = await daemon.cli(["run", "--id", "literal", "--env", "A=b=c", "--", ...words]);
    expect([command.code, command.stderr]).toEqual([0, ""]);
    expect((await daemon.cli(["wait", "literal"])).code).toBe(0);
    expect((await daemon.cli(["logs", "literal"])).stdout).toBe("--id|$HOME|a b|{{params.x}}|--|\n");
  });

  test("wait exits with 128 plus the signal's number, with 1 after its timeout, and with 4 for an unknown agent", async () => {
    await daemon.cli(["run", "--id", "killed", "--", "sh", "-c", "kill -9 $$"]);
    const killed = await daemon.cli(["wait", "killed"]);
    expect(killed.code).toBe(137);
    expect(killed.stdout).toMatch(/^killed was killed by SIGKILL after /);
    const late = await daemon.cli(["wait", "master", "--timeout", "50ms"]);
    expect([late.code, late.stdout]).toEqual([1, ""]);
    expect(late.stderr).toMatch(/^error: .*master/);
    expect((await daemon.cli(["wait", "nobody"])).code).toBe(4);
  });

  test("agent verbs act on each agent; a refusal does not hold up the others and sets the exit code", async () => {
    await daemon.cli(["run", "Sleeper", "--id", "verbs"]);
    const before = (await daemon.client.agents.get("verbs")).pid;
    const restarted = await daemon.cli(["agent", "restart", "verbs", "--json"]);
    const [after] = JSON.parse(restarted.stdout).items;
    expect([restarted.code, after.state, after.pid !== before]).toEqual([0, "running", true]);
    const stopped = await daemon.cli(["agent", "stop", "nobody", "verbs"]);
    expect([stopped.code, stopped.stdout]).toEqual([4, expect.stringMatching(/^verbs {2}stopped/)]);
    expect(stopped.stderr).toContain('error: there is no agent "nobody"\nhint: openstarry-daemon list');
    expect(identify(after.pid)).toBeUndefined();
    const signalled = await daemon.cli(["agent", "signal", "verbs", "-s", "hup"]);
    expect([signalled.code, signalled.stderr]).toEqual([5, expect.stringContaining("error: ")]);
    expect((await daemon.cli(["agent", "start", "verbs"])).stdout).toMatch(/^verbs {2}running {2}pid \d+\n$/);
    expect((await daemon.cli(["agent", "signal", "verbs", "--signal", "SIGKILL"])).code).toBe(0);
    expect((await daemon.cli(["agent", "status", "verbs"])).stdout).toMatch(/template +Sleeper \(revision /);
    expect((await daemon.cli(["agent", "rm", "verbs", "--force"])).stdout).toMatch(/^verbs {2}removed/);
    expect((await daemon.cli(["agent", "status", "verbs"])).code).toBe(4);
  });

  test("list filters agents and shows them as a tree", async () => {
    await daemon.cli(["run", "Worker", "--id", "labelled", "--label", "team=research", "--wait"]);
    const labelled = await daemon.cli(["list", "--label", "team=research", "--json"]);
    expect(JSON.parse(labelled.stdout).items).toMatchObject([{ agent_id: "labelled", state: "exited" }]);
    const running = await daemon.cli(["list", "--state", "running,starting", "--template", "Sleeper"]);
    expect(running.stdout).toMatch(
      /^AGENT +STATE +HEALTH +PID +CPU +MEM +UP +RESTARTS +TEMPLATE +ABOUT\nmaster +running +- +\d+/,
    );
    expect((await daemon.cli(["list", "--state", "failed"])).stdout).toBe("No agents.\n");
    expect((await daemon.cli(["ls", "--tree"])).stdout).toContain("master");
  });

  test("logs prints raw bytes to a pipe, and neutralises them on a terminal unless --raw is given", async () => {
    await daemon.cli(["run", "Worker", "--id", "printer", "--wait"]);
    const bytes = execFileSync(process.execPath, [COMMAND, "--home", daemon.home, "logs", "printer"]);
    expect(bytes).toEqual(Buffer.from("plain\n\x1b]0;owned\x07\xff\n", "latin1"));
    const onTerminal = (...flags: string[]) => {
      const line = [process.execPath, COMMAND, "--home", daemon.home, "logs", "printer", ...flags].join(" ");
      return execFileSync("script", ["-qec", line, "/dev/null"], { stdio: ["ignore", "pipe", "pipe"] });
    };
    expect(onTerminal().toString()).toBe("plain\r\n\\x1b]0;owned\\x07\ufffd\r\n");
    expect(onTerminal("--raw")).toEqual(Buffer.from("plain\r\n\x1b]0;owned\x07\xff\r\n", "latin1"));
    const json = (await daemon.cli(["logs", "printer", "-n", "1", "--json"])).stdout;
    expect(JSON.parse(json)).toMatchObject({
      agent_id: "printer",
      stream: "stdout",
      text: "\x1b]0;owned\x07\ufffd",
    });
    expect((await daemon.cli(["logs", "printer", "w-done", "-n", "1", "--stream", "stdout"])).stdout).toMatch(
      /^printer \| .*\nw-done {2}\| /s,
    );
    expect((await daemon.cli(["logs", "nobody"])).code).toBe(4);
  });

  test("why and events show what happened, as text and as JSON", async () => {
    await daemon.cli(["run", "Worker", "--id", "explained", "--param", "code=9", "--wait"]);
    const why = await daemon.cli(["why", "explained"]);
    expect(why.code).toBe(0);
    expect(why.stdout).toMatch(/^explained has exited\n/);
    expect(why.stdout).toContain("To do: ");
    expect(why.stdout).not.toContain("GET /agents");
    expect(JSON.parse((await daemon.cli(["why", "explained", "--json"])).stdout)).toMatchObject({
      state: "exited",
    });
    const lines = (await daemon.cli(["events", "--agent", "explained", "-n", "50", "--json"])).stdout
      .trim()
      .split("\n");
    expect(lines.map((line) => JSON.parse(line).type)).toEqual(
      expect.arrayContaining(["agent.created", "agent.exited"]),
    );
    expect((await daemon.cli(["events", "-n", "3"])).stdout.trim().split("\n")).toHaveLength(3);
    const { last_event_id } = await daemon.client.daemon.status();
    expect((await daemon.cli(["events", "--after", String(last_event_id)])).stdout).toBe("");
  });

  test("templates are listed, shown, added and removed; an invalid one is refused", async () => {
    expect((await daemon.cli(["templates"])).stdout).toMatch(
      /Worker +code\? text\? +Prints, leaves a result/,
    );
    expect(JSON.parse((await daemon.cli(["templates", "Worker"])).stdout)).toMatchObject({
      template_id: "Worker",
    });
    const yaml = "template_id: Added\ncommand: /bin/true\nrestart: { policy: never }\n";
    const added = await daemon.cli(["templates", "add", "-"], { input: yaml });
    expect([added.code, added.stdout]).toEqual([0, "Added  added\n"]);
    expect((await daemon.cli(["run", "Added", "--wait"])).code).toBe(0);
    expect((await daemon.cli(["templates", "rm", "Added"])).stdout).toBe("Added  removed\n");
    expect((await daemon.cli(["run", "Added"])).code).toBe(4);
    const bad = await daemon.cli(["templates", "add", "-"], {
      input: "template_id: Bad\ncomand: /bin/true\n",
    });
    expect([bad.code, bad.stderr]).toEqual([2, expect.stringContaining("comand")]);
    expect((await daemon.cli(["templates", "add", "-"], { input: "- just a list" })).code).toBe(2);
  });

  test("plugins are listed", async () => {
    const { stdout } = await daemon.cli(["plugins", "--json"]);
    expect(JSON.parse(stdout).items).toContainEqual(
      expect.objectContaining({ name: "http-api", state: "started" }),
    );
    expect((await daemon.cli(["plugins"])).stdout).toMatch(/http-api +started/);
  });

  test("a rotated token is valid at once, and the old one no longer", async () => {
    const path = (await daemon.cli(["token"])).stdout.trim();
    const old = (await daemon.cli(["token", "--show"])).stdout.trim();
    expect([path, old]).toEqual([join(daemon.home, "token"), readFileSync(path, "utf8").trim()]);
    expect((await daemon.cli(["token", "rotate"])).code).toBe(0);
    const { url } = JSON.parse(readFileSync(join(daemon.home, "daemon.json"), "utf8"));
    const whoami = (token: string) =>
      fetch(`${url}/whoami`, { headers: { authorization: `Bearer ${token}` } });
    expect((await whoami(old)).status).toBe(401);
    expect((await whoami(readFileSync(path, "utf8").trim())).status).toBe(200);
    expect((await daemon.cli(["list"])).code).toBe(0);
  });

  test("a token that others can read is not used", async () => {
    chmodSync(join(daemon.home, "token"), 0o644);
    const { code, stderr } = await daemon.cli(["list"]);
    chmodSync(join(daemon.home, "token"), 0o600);
    expect([code, stderr]).toEqual([5, expect.stringContaining("can be read by others")]);
  });

  test("the command acts as the agent that calls it, not as the operator", async () => {
    const script = `${process.execPath} ${COMMAND} list --json; ${process.execPath} ${COMMAND} stop; echo "exit $?"`;
    await daemon.cli(["run", "--id", "insider", "--", "sh", "-c", script]);
    await daemon.cli(["wait", "insider"]);
    const { stdout } = await daemon.cli(["logs", "insider", "--stream", "stdout", "-n", "1000"]);
    const [, list, exit] = /^(.*)\nexit (\d+)\n$/s.exec(stdout) ?? [];
    expect(JSON.parse(list ?? "").items.map(({ agent_id }: { agent_id: string }) => agent_id)).toEqual([
      "insider",
    ]);
    expect(exit).toBe("5");
  });

  test("a reader that closes the pipe is no failure", () => {
    const line = `${process.execPath} ${COMMAND} --home ${daemon.home} events -n 1000 --json | head -n 1; echo "\${PIPESTATUS[0]}"`;
    const output = execFileSync("bash", ["-c", line], { encoding: "utf8" });
    expect(output.trim().split("\n").at(-1)).toBe("0");
  });
});

describe("start and stop", () => {
  let daemon: TestDaemon | undefined;
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "openstarry-cli-"));
  });
  afterEach(async () => {
    await daemon?.stop();
    daemon = undefined;
    rmSync(dir, { recursive: true, force: true });
  });

  const start = async (options: Parameters<typeof startDaemon>[0] = {}) => {
    daemon = await startDaemon({ config: { agents: [master] }, templates: [Sleeper], ...options });
    return daemon;
  };

  test("start prints its address, its config, its agents and the next commands", async () => {
    const it = await start();
    await it.cli(["stop"]);
    const { stdout, stderr } = await it.start();
    expect(stderr).toBe("");
    expect(stdout).toMatch(/API {5}http:\/\/127\.0\.0\.1:\d+\n/);
    expect(stdout).toContain(`config  ${it.config}\n`);
    expect(stdout).toMatch(/master {2}running {2}pid \d+\n/);
    expect(stdout).toMatch(/Next: .*openstarry-daemon list/);
  });

  test("without a config the daemon starts empty and suggests init; all its files are private whatever the umask", async () => {
    const home = join(dir, "home");
    const script = `umask 000; exec ${process.execPath} ${COMMAND} start --port 0 --home ${home}`;
    const stdout = execFileSync("bash", ["-c", script], {
      cwd: dir,
      encoding: "utf8",
      env: { PATH: process.env.PATH, HOME: dir },
    });
    try {
      expect(stdout).toMatch(/config +none/);
      expect(stdout).toContain("openstarry-daemon init");
      const open = execFileSync("find", [home, "-perm", "/077", "-printf", "%P %m\n"], { encoding: "utf8" });
      expect(open).toBe("");
    } finally {
      await runCli(["stop", "--home", home]);
    }
  });

  test("stop ends agents and daemon and leaves no process behind", async () => {
    const it = await start();
    const daemonPid = it.pid() as number;
    const agentPid = (await it.client.agents.get("master")).pid as number;
    const { code, stdout } = await it.cli(["stop"]);
    expect([code, stdout]).toEqual([0, `The daemon (pid ${daemonPid}) has stopped.\n`]);
    expect([identify(daemonPid), identify(agentPid)]).toEqual([undefined, undefined]);
    expect(readdirSync(it.home).filter((name) => /^daemon\.(json|sock)$/.test(name))).toEqual([]);
    expect(await it.cli(["stop"])).toMatchObject({
      code: 0,
      stdout: `No daemon is running on ${it.home}.\n`,
    });
    expect(await it.cli(["list"])).toMatchObject({ code: 3 });
    expect(await it.cli(["restart"])).toMatchObject({ code: 3 });
    expect(await it.cli(["status", "--json"])).toMatchObject({ code: 3 });
  });

  test("stop --keep-agents keeps agents running, and the next daemon adopts them", async () => {
    const it = await start();
    const before = await it.client.agents.get("master");
    expect((await it.cli(["stop", "--keep-agents"])).stdout).toContain("agents keep running");
    expect(identify(before.pid as number)).toBeDefined();
    await it.start();
    expect(await it.client.agents.get("master")).toMatchObject({
      pid: before.pid,
      run_id: before.run_id,
      restarts: 0,
    });
  });

  test("a stale daemon.json after kill -9 misleads no command", async () => {
    const it = await start();
    const before = await it.client.agents.get("master");
    process.kill(it.pid() as number, "SIGKILL");
    await waitFor(() => it.pid() === undefined, { what: "the lock to be free" });
    expect(existsSync(join(it.home, "daemon.json"))).toBe(true);
    expect(await it.cli(["status"])).toMatchObject({ code: 3, stdout: "" });
    expect(await it.cli(["list"])).toMatchObject({ code: 3 });
    expect(await it.cli(["stop"])).toMatchObject({ code: 0 });
    await it.start();
    expect(await it.client.agents.get("master")).toMatchObject({ pid: before.pid, run_id: before.run_id });
  });

  test("one of four simultaneous starts succeeds, and the others name its pid", async () => {
    const home = join(dir, "home");
    const results = await Promise.all(
      [1, 2, 3, 4].map(() => runCli(["start", "--port", "0", "--home", home])),
    );
    try {
      expect(results.map(({ code }) => code).sort()).toEqual([0, 5, 5, 5]);
      const [, pid] = /\(pid (\d+)/.exec(results.find(({ code }) => code === 0)?.stdout ?? "") ?? [];
      for (const { code, stderr } of results) if (code === 5) expect(stderr).toContain(`(pid ${pid})`);
    } finally {
      await runCli(["stop", "--home", home]);
    }
  });

  test("a failed start prints the reason, exits with its code and leaves nothing behind", async () => {
    const home = join(dir, "home");
    const bad = join(dir, "bad.json");
    const attempt = async (...args: string[]) => {
      const result = await runCli(["start", "--home", home, ...args], { cwd: dir });
      expect(result.stdout).toBe("");
      expect(result.stderr).toMatch(/^error: /);
      expect(await runCli(["status", "--home", home])).toMatchObject({ code: 3 });
      expect(existsSync(join(home, "daemon.json")) || existsSync(join(home, "daemon.sock"))).toBe(false);
      return [result.code, result.stderr] as const;
    };
    writeFileSync(bad, '{ "agents": [], "agent": [] }');
    expect(await attempt("--config", bad)).toEqual([2, expect.stringMatching(/bad\.json.*"agent".*agents/s)]);
    expect(await attempt("--config", join(dir, "absent.json"))).toEqual([
      2,
      expect.stringContaining("absent.json"),
    ]);
    writeFileSync(bad, '{ "plugins": [["http-api", { "prt": 1 }]] }');
    expect(await attempt("--config", bad)).toEqual([2, expect.stringContaining("prt")]);

    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    expect(await attempt("--port", String(port))).toEqual([1, expect.stringContaining(String(port))]);
    server.close();

    chmodSync(home, 0o777);
    expect(await attempt()).toEqual([
      1,
      expect.stringMatching(/others can write to it.*\nhint: .*chmod 700/s),
    ]);
  });

  test.each(["yaml", "json", "ts"])(
    "init --format %s writes a project that validate accepts and start runs",
    async (format) => {
      const home = join(dir, "home");
      const cli = (...args: string[]) => runCli(["--home", home, ...args], { cwd: dir });
      const written = await cli("init", "--format", format);
      expect(written).toMatchObject({
        code: 0,
        stderr: "",
        stdout: expect.stringContaining(`openstarry.config.${format}`),
      });
      expect((await cli("init", "--format", format)).code).toBe(2);
      const report = await cli("validate", "--json");
      expect([report.code, JSON.parse(report.stdout)]).toMatchObject([
        0,
        { agents: ["hello"], problems: [] },
      ]);
      try {
        expect(await cli("start", "--port", "0")).toMatchObject({
          code: 0,
          stdout: expect.stringMatching(/hello +running/),
        });
      } finally {
        await cli("stop");
      }
    },
  );

  test("validate prints all problems and exits with 2", async () => {
    const config = { agents: [{ agent_id: "a", template_id: "Absent" }], plugins: ["htp-api"] };
    writeFileSync(join(dir, "openstarry.config.json"), JSON.stringify(config));
    const { code, stderr } = await runCli(["validate", "--home", join(dir, "home")], { cwd: dir });
    expect(code).toBe(2);
    expect(stderr).toMatch(/^problem: .*htp-api/m);
    expect(stderr).toMatch(/^problem: .*Absent/m);
    expect(existsSync(join(dir, "home"))).toBe(false);
  });

  test("the daemon does not hold descriptors of the process that starts it", async () => {
    const home = join(dir, "home");
    // The substitution ends when nobody holds the pipe any more, whatever its number.
    const line = `out=$(${process.execPath} ${COMMAND} start --port 0 --home ${home} 9>&1 77>&1); echo "\${out%%(*}"`;
    try {
      const output = execFileSync("bash", ["-c", line], { encoding: "utf8", timeout: 20_000 });
      expect(output).toBe("openstarry-daemon is ready \n");
    } finally {
      await runCli(["stop", "--home", home]);
    }
  });

  test("usage errors exit with 2 without asking the daemon", async () => {
    for (const args of [["start", "x"], ["strat"], ["agent", "stop"], ["logs", "-n", "x"], [], ["agent"]]) {
      const { code, stderr } = await runCli(["--home", dir, ...args]);
      expect([args, code, stderr === ""]).toEqual([args, 2, false]);
    }
    expect(await runCli(["--version"])).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
    });
    expect((await runCli(["--help"])).stdout).toContain("start the daemon");
  });
});

describe("in the foreground", () => {
  let home: string;
  let child: ChildProcess | undefined;
  let log: string;
  beforeEach(async () => {
    home = mkdtempSync(join(tmpdir(), "openstarry-fg-"));
    log = "";
    const args = [COMMAND, "start", "--foreground", "--port", "0", "--home", home];
    child = spawn(process.execPath, args, { cwd: home, stdio: ["ignore", "ignore", "pipe"] });
    child.stderr?.setEncoding("utf8").on("data", (text) => {
      log += text;
    });
    await waitFor(() => log.includes("the daemon is ready"), { what: "readiness", diagnose: () => log });
  });
  afterEach(() => {
    child?.kill("SIGKILL");
    rmSync(home, { recursive: true, force: true });
  });

  test.each(["SIGTERM", "SIGINT"] as const)(
    "%s stops the daemon with exit code 0; its log is lines for people",
    async (signal) => {
      child?.kill(signal);
      expect(await once(child as ChildProcess, "exit")).toEqual([0, null]);
      expect(existsSync(join(home, "daemon.json"))).toBe(false);
      for (const line of log.trim().split("\n"))
        expect(line).toMatch(/^\d\d:\d\d:\d\d\.\d{3} (info|warn) {1,2}\S/);
      const records = readFileSync(join(home, "daemon.log"), "utf8").trim().split("\n");
      expect(records.map((record) => JSON.parse(record).msg)).toContain("stopped");
    },
  );

  test("SIGHUP reloads the config", async () => {
    child?.kill("SIGHUP");
    await waitFor(() => log.includes("config reloaded"), {
      what: "the reload",
      diagnose: () => log,
    });
    expect(await runCli(["status", "--home", home])).toMatchObject({ code: 0 });
  });

  test("restart is refused: the process belongs to the program that started it", async () => {
    const { code, stderr } = await runCli(["restart", "--home", home]);
    expect([code, stderr]).toEqual([5, expect.stringContaining("foreground")]);
    const ended = once(child as ChildProcess, "exit");
    expect(await runCli(["stop", "--home", home])).toMatchObject({ code: 0 });
    expect(await ended).toEqual([0, null]);
  });
});
