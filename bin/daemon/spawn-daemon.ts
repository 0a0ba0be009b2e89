import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, fstatSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Duplex } from "node:stream";
import { fileURLToPath } from "node:url";
import { ERROR_CODES, type ErrorCode, OpenStarryError } from "../../core/contracts/errors.js";
import { systemClock } from "../../core/lib/clock.js";
import { withDeadline } from "../../core/lib/deadline.js";
import { errorText } from "../../core/lib/error-text.js";
import { formatDuration } from "../../core/lib/units.js";
import { dropAgentVariables } from "../agent-environment.js";
import { HOME_FILES } from "./home.js";
import { openLogFile } from "./log-file.js";
import {
  type DaemonMessage,
  HANDED_OVER,
  type HandedOver,
  type PredecessorWord,
  type ReadyReport,
} from "./parent-channel.js";

export interface DaemonArguments {
  home: string;
  config?: string;
  port?: number;
  fresh?: boolean;
}

export interface SpawnOptions extends DaemonArguments {
  /** Where to search for a config. */
  cwd: string;
  env: NodeJS.ProcessEnv;
  /** Listening sockets for a successor, by name. */
  sockets?: ReadonlyMap<string, number>;
  successor?: boolean;
  /** With the output of this process instead of `daemon.log`. */
  foreground?: boolean;
}

/** A daemon that is starting. */
export interface DaemonChild {
  readonly pid: number;
  /** Resolves when it has checked all that it can check while its predecessor is running. */
  prepared(): Promise<void>;
  /** Sends a message to a successor that is prepared (`go`) or ready (`main`). */
  say(word: PredecessorWord): void;
  ready(): Promise<ReadyReport>;
  kill(signal: NodeJS.Signals): void;
  /** Kills it with SIGKILL. Resolves when it has exited. */
  end(): Promise<void>;
  /** Detaches from it: this process may exit first. */
  release(): void;
}

const FIRST_SOCKET_FD = 4;

/**
 * A young generation of 2 MiB instead of 16: the daemon allocates little and lives long, and the smaller it is, the
 * faster it forks.
 */
const SMALL_HEAP = "--max-semi-space-size=2";

/**
 * Starts a daemon in a session of its own, with its output in `daemon.log` and a channel on descriptor 3. `ready` and
 * `prepared` reject with the daemon's own error, or with `internal` if it exits or is silent for `timeoutMs`.
 */
export function spawnDaemon(options: SpawnOptions, timeoutMs = 60_000): DaemonChild {
  const sockets = [...(options.sockets ?? [])];
  const handedOver: HandedOver = {
    channel_fd: 3,
    sockets: Object.fromEntries(sockets.map(([name], index) => [name, FIRST_SOCKET_FD + index])),
    successor: options.successor,
    foreground: options.foreground,
  };
  const log = openLogFile(options.home);
  const output = options.foreground ? "inherit" : log;
  const printedError = options.foreground ? () => undefined : printedSince(fstatSync(log).size, options.home);
  const flags = [SMALL_HEAP, ...process.execArgv.filter((flag) => flag !== SMALL_HEAP)];
  const child = spawn(process.execPath, [...flags, mainFile(), ...argumentsOf(options)], {
    // The folder that a daemon was started in may no longer exist when it is replaced.
    cwd: existsSync(options.cwd) ? options.cwd : options.home,
    detached: true,
    env: { ...dropAgentVariables({ ...options.env }), [HANDED_OVER]: JSON.stringify(handedOver) },
    stdio: ["ignore", output, output, "pipe", ...sockets.map(([, fd]) => fd)],
  });
  closeSync(log);
  const channel = child.stdio[3] as Duplex;
  const inbox = createInbox(child, channel, { timeoutMs, printedError });
  return {
    pid: child.pid ?? 0,
    prepared: async () => void (await inbox.next("prepared")),
    say: (word) => void channel.write(`${word}\n`),
    ready: async () => (await inbox.next("ready")).ready,
    // Safe by pid: it is a child of this process and not reaped elsewhere.
    kill: (signal) => void child.kill(signal),
    end: () =>
      new Promise((resolve) => {
        if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return resolve();
        child.once("exit", () => resolve());
        child.kill("SIGKILL");
      }),
    release() {
      channel.destroy();
      child.unref();
    },
  };
}

/** Answers the file of the built command. */
function mainFile(): string {
  return fileURLToPath(new URL("../openstarry-daemon.js", import.meta.url));
}

function argumentsOf({ home, config, port, fresh }: DaemonArguments): string[] {
  return [
    "start",
    "--foreground",
    "--home",
    home,
    ...(config === undefined ? [] : ["--config", config]),
    ...(port === undefined ? [] : ["--port", String(port)]),
    ...(fresh ? ["--fresh"] : []),
  ];
}

type Message<K extends string> = Extract<DaemonMessage, Record<K, unknown>>;

interface InboxOptions {
  timeoutMs: number;
  /** The error that it printed before it exited, if any. */
  printedError: () => string | undefined;
}

function createInbox(child: ChildProcess, channel: Duplex, { timeoutMs, printedError }: InboxOptions) {
  const lines = createInterface({ input: channel })[Symbol.asyncIterator]();
  channel.on("error", () => {});
  const ended = new Promise<never>((_, reject) => {
    child.once("error", (cause) => reject(new Error(`it could not be started: ${cause.message}`, { cause })));
    // "close" is emitted after the last message was read.
    child.once("close", (code, signal) => {
      const error = printedError();
      reject(
        new Error(
          `it ${signal ? `was killed by ${signal}` : `exited with code ${code}`}${error === undefined ? "" : `: ${error}`}`,
        ),
      );
    });
  });
  ended.catch(() => {});
  return {
    async next<K extends "prepared" | "ready">(kind: K): Promise<Message<K>> {
      const late = `it sent no message within ${formatDuration(timeoutMs)}`;
      const message = await withDeadline(systemClock, timeoutMs, late, async () => {
        const line = await lines.next();
        return line.done ? await ended : line.value;
      }).catch((error: unknown) => {
        throw notReady(errorText(error), error);
      });
      const parsed = JSON.parse(message) as DaemonMessage;
      if ("error" in parsed) throw errorOf(parsed.error);
      if (!(kind in parsed)) throw notReady(`it sent ${message}`);
      return parsed as Message<K>;
    },
  };
}

/** Finds, in the log, the error that Node printed because the program could not be loaded or threw at once. */
function printedSince(start: number, home: string): () => string | undefined {
  return () => {
    try {
      const printed = readFileSync(join(home, HOME_FILES.log)).subarray(start).toString();
      const error = /^\w*Error\b.*$/m.exec(printed)?.[0];
      const place = /^(?:file:\/\/)?(\/\S+:\d+)$/m.exec(printed)?.[1];
      return error && place ? `${error} (${place})` : error;
    } catch {
      return undefined;
    }
  };
}

function notReady(why: string, cause?: unknown): OpenStarryError {
  return new OpenStarryError("internal", {
    detail: `the daemon did not become ready: ${why}`,
    hint: "see daemon.log in its home, or standard error for a daemon in the foreground",
    cause,
  });
}

function errorOf(problem: Record<string, unknown>): OpenStarryError {
  const code = String(problem.code) as ErrorCode;
  return new OpenStarryError(code in ERROR_CODES ? code : "internal", {
    detail: String(problem.detail),
    hint: typeof problem.hint === "string" ? problem.hint : undefined,
  });
}
