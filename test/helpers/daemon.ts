import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { lockHolder } from "../../bin/daemon/lock.js";
import { type Client, createClient } from "../../plugins/agent-manager-tool/client/client.js";
import { processesOf } from "./processes.js";
import { waitFor } from "./wait-for.js";

/** The built command. */
export const COMMAND = fileURLToPath(new URL("../../dist/bin/openstarry-daemon.js", import.meta.url));

export interface CliResult {
  /** The exit code; -1 when a signal ended it. */
  code: number;
  stdout: string;
  stderr: string;
}

export interface CliOptions {
  env?: Record<string, string>;
  cwd?: string;
  /** Given on standard input; absent: there is none. */
  input?: string;
  /** It is killed after this long. Default 30,000. */
  timeoutMs?: number;
}

/** Runs the built command. The environment holds no `OPENSTARRY_*` of the test's own. */
export function runCli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  if (!existsSync(COMMAND)) throw new Error("dist/ is missing: npm run build");
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("OPENSTARRY_"));
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [COMMAND, ...args], {
      cwd: options.cwd ?? tmpdir(),
      env: { ...Object.fromEntries(inherited), ...options.env },
      stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    });
    const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? 30_000);
    let [stdout, stderr] = ["", ""];
    child.stdout?.setEncoding("utf8").on("data", (text) => {
      stdout += text;
    });
    child.stderr?.setEncoding("utf8").on("data", (text) => {
      stderr += text;
    });
    child.stdin?.end(options.input);
    child.once("error", reject);
    child.once("close", (code) => {
      clearTimeout(timer);
      resolve({ code: code ?? -1, stdout, stderr });
    });
  });
}

export interface DaemonOptions {
  /** As in `openstarry.config.json`. Absent: `{}`. */
  config?: Record<string, unknown>;
  /** Template documents; each lands in a file of its own beside the config. */
  templates?: readonly ({ template_id: string } & Record<string, unknown>)[];
  /** A folder to use, and to leave behind. Default: one of its own, gone after `stop`. */
  home?: string;
  /** Further words for `start`. */
  args?: readonly string[];
  env?: Record<string, string>;
}

export interface TestDaemon {
  readonly home: string;
  /** The folder with the config and `templates/`. */
  readonly project: string;
  readonly config: string;
  readonly client: Client;
  /** The process that holds this home's lock now. */
  pid(): number | undefined;
  /** `openstarry-daemon ARGS` on this home. */
  cli(args: readonly string[], options?: CliOptions): Promise<CliResult>;
  /** Starts it again after it was stopped or killed. Throws with what it said when it does not start. */
  start(args?: readonly string[]): Promise<CliResult>;
  /** Ends daemon and agents and removes the folders. Also for a daemon that the test has killed. */
  stop(): Promise<void>;
}

/**
 * The built daemon on a folder and a port of its own. Call `stop` in `afterEach` or `afterAll`; a test
 * run that ends without it takes the daemon's process along.
 */
export async function startDaemon(options: DaemonOptions = {}): Promise<TestDaemon> {
  const project = mkdtempSync(join(tmpdir(), "openstarry-test-"));
  const home = options.home ?? join(project, "home");
  const config = join(project, "openstarry.config.json");
  mkdirSync(join(project, "templates"));
  for (const template of options.templates ?? []) {
    const file = join(project, "templates", `${template.template_id}.json`);
    writeFileSync(file, JSON.stringify(template));
  }
  writeFileSync(config, JSON.stringify({ templates: ["./templates"], ...options.config }));

  const env = { ...options.env, OPENSTARRY_HOME: home };
  const cli = (args: readonly string[], given: CliOptions = {}) =>
    runCli(args, { cwd: project, ...given, env: { ...env, ...given.env } });
  const start = async (args: readonly string[] = options.args ?? []) => {
    const result = await cli(["start", "--config", config, "--port", "0", ...args]);
    if (result.code !== 0)
      throw new Error(`start: exit ${result.code}\n${result.stderr}${result.stdout}${tail(home)}`);
    return result;
  };
  const killNow = () => {
    const pid = lockHolder(home);
    if (pid !== undefined) process.kill(pid, "SIGKILL");
  };
  process.once("exit", killNow);
  const client = createClient({ home });
  const daemon: TestDaemon = {
    home,
    project,
    config,
    client,
    pid: () => lockHolder(home),
    cli,
    start,
    async stop() {
      // One that was killed left its agents: the next one ends them.
      if (lockHolder(home) === undefined && existsSync(join(home, "daemon.json")))
        await start().catch(() => {});
      // Whatever `on_daemon_stop` says; where that cannot be asked for, the command finds another way.
      await client.daemon.stop({ agents: "stop" }).catch(() => cli(["stop"]));
      const gone = () => lockHolder(home) === undefined;
      await waitFor(gone, { timeoutMs: 30_000, what: "the daemon's end" }).catch(killNow);
      client.close();
      // Agents that the test had kept alive without a daemon.
      for (const { pid } of processesOf(home)) {
        try {
          process.kill(pid, "SIGKILL");
        } catch {
          // It ended by itself.
        }
      }
      process.off("exit", killNow);
      rmSync(project, { recursive: true, force: true, maxRetries: 5 });
    },
  };
  try {
    await start();
  } catch (error) {
    await daemon.stop();
    throw error;
  }
  return daemon;
}

function tail(home: string): string {
  try {
    return readFileSync(join(home, "daemon.log"), "utf8").slice(-4_000);
  } catch {
    // It did not come so far.
    return "";
  }
}
