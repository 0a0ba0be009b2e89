import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { z } from "zod";
import { bootId } from "./identity.js";

/** Processes of a run, by pid. */
export type Remembered = ReadonlyMap<number, Seen>;

export interface Seen {
  /** In clock ticks since boot. */
  readonly start_ticks: number;
  /** What speaks for it can be copied. */
  readonly byMarks: boolean;
}

const fileSchema = z.object({
  boot_id: z.string(),
  runs: z.record(
    z.string(),
    z.array(z.tuple([z.int().min(2), z.int().min(0), z.literal("marks").optional()])),
  ),
});

/** What the daemon before remembered, by run; nothing of an earlier boot, nor of a file that makes no sense. */
export function readRemembered(path: string): Map<string, Remembered> {
  try {
    const { boot_id, runs } = fileSchema.parse(JSON.parse(readFileSync(path, "utf8")));
    if (boot_id !== bootId()) return new Map();
    const seen = (pids: (typeof runs)[string]) =>
      pids.map(([pid, start_ticks, by]) => [pid, { start_ticks, byMarks: by !== undefined }] as const);
    return new Map(Object.entries(runs).map(([id, pids]) => [id, new Map(seen(pids))]));
  } catch {
    return new Map();
  }
}

/** All of it or nothing; not synced, since it is worth nothing after a crash of the machine. */
export function writeRemembered(path: string, runs: ReadonlyMap<string, Remembered>): void {
  const listed = (pids: Remembered) =>
    [...pids].map(([pid, { start_ticks, byMarks }]) => [pid, start_ticks, ...(byMarks ? ["marks"] : [])]);
  const entries = [...runs].map(([id, pids]) => [id, listed(pids)]);
  const text = JSON.stringify({ boot_id: bootId(), runs: Object.fromEntries(entries) });
  const draft = `${path}.new`;
  rmSync(draft, { force: true });
  writeFileSync(draft, text, { mode: 0o600, flag: "wx" });
  renameSync(draft, path);
}
