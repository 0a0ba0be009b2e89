import { statSync } from "node:fs";
import { join } from "node:path";
import { type Clock, type ExitStatus, type RunOutcome, sleep } from "../../../core/index.js";
import { isAlive, signalProcess } from "../tree/identity.js";
import { readPlainFile, readStatusFile } from "./exit-status.js";
import type { ProcessTarget } from "./target.js";

interface StatusSource {
  target: ProcessTarget;
  statusFile: string;
  clock: Clock;
}

export interface OutcomeSource {
  target: ProcessTarget;
  statusFile: string;
  /** Returns the last lines that the run printed. */
  outputTail(): Promise<string | undefined>;
  /** Whether this daemon started the run, and so saw it exit. */
  isOwnChild: boolean;
}

/** How long the shim may take to write the exit status. */
const STATUS_PATIENCE_MS = 2_000;
const STATUS_LOOK_MS = 5;
const MAX_RESULT_BYTES = 2 ** 20;

/** Reads the status file, and gives the shim time to write it. */
export async function waitForStatus({
  target,
  statusFile,
  clock,
}: StatusSource): Promise<ExitStatus | undefined> {
  const end = clock.monotonic() + STATUS_PATIENCE_MS;
  // A stopped shim (SIGSTOP) cannot write.
  if (target.shim) signalProcess(target.shim, "SIGCONT");
  for (;;) {
    const status = readStatusFile(statusFile);
    const mayCome = target.shim !== undefined && isAlive(target.shim) && clock.monotonic() < end;
    if (status || !mayCome) return status ?? readStatusFile(statusFile);
    await sleep(clock, STATUS_LOOK_MS);
  }
}

/** Collects what is known of a run after its exit: status, last output and result. */
export async function collectOutcome(
  source: OutcomeSource,
  status: ExitStatus | undefined,
  verdict: Pick<RunOutcome, "cause" | "note">,
): Promise<RunOutcome> {
  const outcome: RunOutcome = { status: status ?? { kind: "lost" }, ...verdict };
  // The agent never ran, so it did not fail.
  if (status?.kind === "spawn_failed") outcome.cause = "daemon_stop";
  const tail = await source.outputTail();
  if (tail) outcome.outputTail = tail;
  const result = readPlainFile(join(source.target.folder, "result"), MAX_RESULT_BYTES);
  if (result === "too large")
    outcome.note = [verdict.note, "its result was larger than 1 MiB and was discarded"]
      .filter(Boolean)
      .join("; ");
  else if (result && result.length > 0) outcome.result = result.toString("utf8");
  const written = !source.isOwnChild && statSync(source.statusFile, { throwIfNoEntry: false });
  if (status && written) outcome.endedAtMs = written.mtimeMs;
  return outcome;
}
