import { constants } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { layoutOf, namesIn, openPlain, parseSegment, runsIn, type Segment, STREAMS } from "./segments.js";

/**
 * Removes the output of one agent beyond the `keep` newest older segments of each stream. A segment is an
 * archive or the file of a former run; the newest run's file is none. Never while an archive is made.
 */
export async function prune(folder: string, keep: number): Promise<void> {
  const names = await namesIn(folder);
  const segments = names.flatMap((name) => parseSegment(name) ?? []);
  const newestRun = runsIn(names).at(-1);
  const left = new Set(names);
  for (const stream of STREAMS) {
    const older = segments
      .filter((it) => it.stream === stream && !isMark(it) && (it.range || it.runId !== newestRun))
      .sort(newestFirst);
    // One after another: the file of a run goes before the archives that tell where it begins.
    for (const segment of older.slice(keep)) {
      if (
        left.has(liveNameOf(segment)) &&
        segment.range?.to === layoutOf(names, segment.runId, stream).base
      ) {
        await empty(join(folder, segment.name));
      } else {
        await rm(join(folder, segment.name), { force: true });
        left.delete(segment.name);
      }
    }
  }
  const leftovers = [...left].filter((name) => isLeftover(name, names, left));
  await Promise.all(leftovers.map((name) => rm(join(folder, name), { force: true })));
}

const isMark = ({ range }: Segment) => range !== undefined && range.from === range.to;
const OURS = /^[^.]+\.(stdout|stderr)\.|^\.holes\.tmp$/;
const liveNameOf = ({ runId, stream }: Pick<Segment, "runId" | "stream">) => `${runId}.${stream}.log`;

function newestFirst(a: Segment, b: Segment): number {
  if (a.runId !== b.runId) return a.runId < b.runId ? 1 : -1;
  return (b.range?.to ?? Number.POSITIVE_INFINITY) - (a.range?.to ?? Number.POSITIVE_INFINITY);
}

/** What belongs to a run whose output is gone, marks that a newer one replaces, drafts of a former daemon. */
function isLeftover(name: string, names: readonly string[], left: ReadonlySet<string>): boolean {
  const [runId = "", stream = ""] = name.split(".");
  const segment = parseSegment(name);
  if (!OURS.test(name) || (segment && !isMark(segment))) return false;
  if (!left.has(`${runId}.${stream}.log`)) return true;
  if (segment) return segment.range?.to !== layoutOf(names, runId, segment.stream).shift;
  return name === `${runId}.${stream}.tmp`;
}

/** Its name still tells where the live file begins. */
async function empty(path: string): Promise<void> {
  const file = await openPlain(path, constants.O_WRONLY | constants.O_TRUNC);
  await file?.close();
}
