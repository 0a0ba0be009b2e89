import { appendFileSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { type LogLine, type LogQuery, type LogRules, systemClock } from "../../core/index.js";
import { loadPunchHole, type PunchHole, punchByTool } from "../../plugins/spawner-process/logs/punch-hole.js";
import { readLogs } from "../../plugins/spawner-process/logs/read.js";
import {
  createRotationScheduler,
  type RotationScheduler,
} from "../../plugins/spawner-process/logs/rotation-scheduler.js";
import { liveName } from "../../plugins/spawner-process/logs/segments.js";
import { newRunId } from "../contract/run-id.js";

export interface OutputFiles {
  readonly folder: string;
  readonly runId: string;
  readonly rotation: RotationScheduler;
  /** What the rotation said, at `warn` and above. */
  readonly said: string[];
  readonly problems: string[];
  /** Prints as the agent does. */
  print(text: string, stream?: "stdout" | "stderr"): void;
  /** Keeps this run's stdout from now on; what is returned ends that. */
  keep(): () => Promise<void>;
  /** Keeps it until as much was put away as the rules ask for, as when a run is over. */
  rotated(): Promise<void>;
  names(): string[];
  /** Bytes that the files take on the disk. */
  diskBytes(): number;
  read(query?: LogQuery): Promise<LogLine[]>;
  texts(query?: LogQuery): Promise<string[]>;
}

export interface OutputFilesOptions extends Partial<LogRules> {
  folder?: string;
  runId?: string;
  punches?: PunchHole[];
}

/** The log folder of an agent, without the agent. It is gone when the test is over. */
export function outputFiles(options: OutputFilesOptions = {}): OutputFiles {
  const { folder = mkdtempSync(join(tmpdir(), "openstarry-output-")), runId = newRunId() } = options;
  const { maxSizeBytes = 64 * 1024, keep: kept = 100, merge = false } = options;
  const said: string[] = [];
  const problems: string[] = [];
  const say = (_: object | string, text = "") => void said.push(text);
  const native = loadPunchHole();
  const rotation = createRotationScheduler({
    clock: systemClock,
    log: { debug() {}, info() {}, warn: say, error: say },
    punches: options.punches ?? [...(native ? [native] : []), punchByTool(() => "/usr/bin/fallocate")],
    onProblem: (problem) => problems.push(problem),
  });
  const names = () => readdirSync(folder).sort();
  const keep = () =>
    rotation.keep({
      agentId: "a",
      runId,
      folder,
      streams: ["stdout"],
      rules: { maxSizeBytes, keep: kept, merge },
    });
  const read = async (query: LogQuery = {}) => {
    const lines: LogLine[] = [];
    for await (const line of readLogs(folder, query, rotation.seen)) lines.push(line);
    return lines;
  };
  onTestFinished(async () => {
    await rotation.release();
    rmSync(folder, { recursive: true, force: true });
  });
  return {
    folder,
    runId,
    rotation,
    said,
    problems,
    print: (text, stream = "stdout") => appendFileSync(join(folder, liveName(runId, stream)), text),
    keep,
    rotated: () => keep()(),
    names,
    diskBytes: () => names().reduce((sum, name) => sum + statSync(join(folder, name)).blocks * 512, 0),
    read,
    texts: async (query) => (await read(query)).map(({ bytes }) => Buffer.from(bytes).toString("utf8")),
  };
}

/** Lines of 100 bytes with their end, numbered from `first` on. */
export function numberedLines(first: number, count: number): string {
  return Array.from({ length: count }, (_, index) => `${numbered(first + index)}\n`).join("");
}

/** As many of them as they are read: without their ends. */
export function numbers(first: number, count: number): string[] {
  return Array.from({ length: count }, (_, index) => numbered(first + index));
}

export function numbered(number: number): string {
  return `${number} `.padEnd(99, ".");
}
