import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { z } from "zod";
import { bootId } from "./identity.js";

/** When processes of a run began, in clock ticks since boot, by pid. */
export type Remembered = ReadonlyMap<number, number>;

const fileSchema = z.object({
  boot_id: z.string(),
  runs: z.record(z.string(), z.array(z.tuple([z.int().min(2), z.int().min(0)]))),
});

/** What the daemon before remembered, by run; nothing of an earlier boot, nor of a file that makes no sense. */
export function readRemembered(path: string): Map<string, Remembered> {
  try {
    const { boot_id, runs } = fileSchema.parse(JSON.parse(readFileSync(path, "utf8")));
    return new Map(boot_id === bootId() ? Object.entries(runs).map(([id, pids]) => [id, new Map(pids)]) : []);
  } catch {
    return new Map();
  }
}

/** All of it or nothing; not synced, since it is worth nothing after a crash of the machine. */
export function writeRemembered(path: string, runs: ReadonlyMap<string, Remembered>): void {
  const entries = [...runs].map(([id, pids]) => [id, [...pids]]);
  const text = JSON.stringify({ boot_id: bootId(), runs: Object.fromEntries(entries) });
  const draft = `${path}.new`;
  rmSync(draft, { force: true });
  writeFileSync(draft, text, { mode: 0o600, flag: "wx" });
  renameSync(draft, path);
}
