import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { lockHolder } from "../../bin/daemon/lock.js";
import { type Client, createClient } from "../../plugins/agent-manager-tool/client/client.js";
import type { CliResult } from "./daemon.js";
import { waitFor } from "./wait-for.js";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** The repository's own compiler. */
export const TSC = join(ROOT, "node_modules/typescript/bin/tsc");

const PROGRAM_TIMEOUT_MS = 180_000;
const REGISTRY_AWAY =
  /E(NOTFOUND|AI_AGAIN|CONNREFUSED|CONNRESET|HOSTUNREACH|NETUNREACH|TIMEDOUT|NOTCACHED)\b/;

export interface RunOptions {
  cwd?: string;
  env?: Record<string, string>;
}

/** Runs a program to its end. It sees nothing of the npm script and the daemon that the test may run in. */
export function runProgram(
  file: string,
  args: readonly string[],
  { cwd, env }: RunOptions = {},
): Promise<CliResult> {
  const inherited = Object.entries(process.env).filter(
    ([name]) =>
      !/^(OPENSTARRY_|VITEST|npm_(package|lifecycle)_|npm_config_(local_|global_)?prefix$)/.test(name),
  );
  const options = {
    ...(cwd === undefined ? {} : { cwd }),
    env: { ...Object.fromEntries(inherited), ...env },
    timeout: PROGRAM_TIMEOUT_MS,
    maxBuffer: 2 ** 26,
  };
  return new Promise((resolve) => {
    execFile(file, args, options, (error, stdout, stderr) => {
      const code = error ? (typeof error.code === "number" ? error.code : -1) : 0;
      resolve({ code, stdout, stderr: code === -1 ? `${stderr}${error?.message}` : stderr });
    });
  });
}

/** As `runProgram`, and throws with all it said when it fails. */
export async function mustRun(
  file: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const { code, stdout, stderr } = await runProgram(file, args, options);
  if (code !== 0) throw new Error(`${file} ${args.join(" ")}: exit ${code}\n${stderr}\n${stdout}`);
  return stdout;
}

export interface PackedPackage {
  file: string;
  /** In bytes, packed. */
  size: number;
  /** Paths from the package's root. */
  files: string[];
}

/** Packs the package in `source` (default: this one, as it is built) into `folder`. */
export async function pack(folder: string, source: string = ROOT): Promise<PackedPackage> {
  const args = ["pack", "--ignore-scripts", "--json", "--pack-destination", folder];
  const [packed] = JSON.parse(await mustRun("npm", args, { cwd: source })) as [
    { filename: string; size: number; files: { path: string }[] },
  ];
  const files = packed.files.map(({ path }) => path);
  return { file: join(folder, packed.filename), size: packed.size, files };
}

/**
 * `npm install ARGS` in `folder`. Answers why it could not be done when the registry cannot be reached;
 * any other failure, and with `CI_REQUIRE_SERVICES=1` that one too, is thrown.
 */
export async function npmInstall(folder: string, args: readonly string[]): Promise<string | undefined> {
  const flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"];
  const { code, stderr } = await runProgram("npm", ["install", ...flags, ...args], { cwd: folder });
  if (code === 0) return undefined;
  const away = REGISTRY_AWAY.exec(stderr)?.[0];
  if (away === undefined || process.env["CI_REQUIRE_SERVICES"] === "1")
    throw new Error(`npm install ${args.join(" ")}: exit ${code}\n${stderr}`);
  const reason = `the npm registry cannot be reached (${away})`;
  console.warn(`${reason}: what needs ${args.join(" ") || folder} is left out`);
  return reason;
}

export interface InstalledDaemon {
  readonly home: string;
  readonly client: Client;
  /** The command with these words, on this home. */
  cli(...words: string[]): Promise<CliResult>;
  /** `start` with these words besides; throws with what it said when it fails. */
  start(...words: string[]): Promise<CliResult>;
  /** The process that holds this home's lock. */
  pid(): number | undefined;
  /** As `kill -9` does it; agents live on. */
  kill(): Promise<void>;
  /** Ends daemon and agents. Safe to call when none runs. */
  stop(): Promise<void>;
}

/** The command of an installed daemon, on a home and ports of its own; `cwd` is where its config is. */
export function installedDaemon(options: {
  command: readonly string[];
  cwd: string;
  home: string;
}): InstalledDaemon {
  const { command, cwd, home } = options;
  const [file = "", ...first] = command;
  const client = createClient({ home });
  const cli = (...words: string[]) =>
    runProgram(file, [...first, ...words], { cwd, env: { OPENSTARRY_HOME: home } });
  const gone = () =>
    waitFor(() => lockHolder(home) === undefined, { timeoutMs: 30_000, what: "the daemon's end" });
  const kill = async () => {
    const pid = lockHolder(home);
    if (pid === undefined) return;
    process.kill(pid, "SIGKILL");
    await gone();
  };
  return {
    home,
    client,
    cli,
    async start(...words) {
      const result = await cli("start", "--port", "0", ...words);
      if (result.code !== 0) throw new Error(`start: exit ${result.code}\n${result.stderr}${result.stdout}`);
      return result;
    },
    pid: () => lockHolder(home),
    kill,
    async stop() {
      if (lockHolder(home) !== undefined) {
        await client.daemon.stop({ agents: "stop" }).catch(() => cli("stop"));
        await gone().catch(kill);
      }
      client.close();
    },
  };
}

/** `/proc/PID/environ` as an object. */
export function environmentOf(pid: number): Record<string, string> {
  const entries = readFileSync(`/proc/${pid}/environ`, "utf8").split("\0").filter(Boolean);
  return Object.fromEntries(entries.map((entry) => entry.split(/=(.*)/s, 2) as [string, string]));
}

/** The files that this process has mapped into its memory: its program, libraries and native modules. */
export function mappedFiles(pid: number): string[] {
  const lines = readFileSync(`/proc/${pid}/maps`, "utf8").split("\n");
  return [...new Set(lines.flatMap((line) => /\s(\/.*)$/.exec(line)?.[1] ?? []))];
}

/** Every `./…` path that package.json's `exports` leads to, by what is imported; `*` stands for each plugin. */
export function exportedPaths(folder: string): Record<string, string[]> {
  const { name, exports } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as {
    name: string;
    exports: Record<string, string | null | Record<string, string>>;
  };
  const plugins = readdirSync(join(folder, "dist/plugins"), { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && entry.name !== "kit")
    .map((entry) => entry.name);
  const entries = Object.entries(exports).flatMap(([key, target]) => {
    if (target === null) return [];
    const targets = typeof target === "string" ? [target] : Object.values(target);
    return (key.includes("*") ? plugins : [""]).map((star): [string, string[]] => [
      `${name}${key.slice(1)}`.replace("*", star),
      targets.map((it) => it.replace("*", star)),
    ]);
  });
  return Object.fromEntries(entries);
}
