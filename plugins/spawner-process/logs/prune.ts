import { constants } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { layoutOf, namesIn, openPlain, type Piece, parsePiece, runsIn, STREAMS } from "./pieces.js";

/**
 * Removes the output of one agent beyond the `keep` newest older pieces of each stream. A piece is an
 * archive or the file of a former run; the newest run's file is none. Never while an archive is made.
 */
export async function prune(folder: string, keep: number): Promise<void> {
  const names = await namesIn(folder);
  const pieces = names.flatMap((name) => parsePiece(name) ?? []);
  const newestRun = runsIn(names).at(-1);
  const left = new Set(names);
  for (const stream of STREAMS) {
    const older = pieces
      .filter((it) => it.stream === stream && !isMark(it) && (it.range || it.runId !== newestRun))
      .sort(newestFirst);
    // One after another: the file of a run goes before the archives that tell where it begins.
    for (const piece of older.slice(keep)) {
      if (left.has(liveNameOf(piece)) && piece.range?.to === layoutOf(names, piece.runId, stream).base) {
        await empty(join(folder, piece.name));
      } else {
        await rm(join(folder, piece.name), { force: true });
        left.delete(piece.name);
      }
    }
  }
  const leftovers = [...left].filter((name) => isLeftover(name, names, left));
  await Promise.all(leftovers.map((name) => rm(join(folder, name), { force: true })));
}

const isMark = ({ range }: Piece) => range !== undefined && range.from === range.to;
const OURS = /^[^.]+\.(stdout|stderr)\.|^\.holes\.tmp$/;
const liveNameOf = ({ runId, stream }: Pick<Piece, "runId" | "stream">) => `${runId}.${stream}.log`;

function newestFirst(a: Piece, b: Piece): number {
  if (a.runId !== b.runId) return a.runId < b.runId ? 1 : -1;
  return (b.range?.to ?? Number.POSITIVE_INFINITY) - (a.range?.to ?? Number.POSITIVE_INFINITY);
}

/** What belongs to a run whose output is gone, marks that a newer one replaces, drafts of a former daemon. */
function isLeftover(name: string, names: readonly string[], left: ReadonlySet<string>): boolean {
  const [runId = "", stream = ""] = name.split(".");
  const piece = parsePiece(name);
  if (!OURS.test(name) || (piece && !isMark(piece))) return false;
  if (!left.has(`${runId}.${stream}.log`)) return true;
  if (piece) return piece.range?.to !== layoutOf(names, runId, piece.stream).shift;
  return name === `${runId}.${stream}.tmp`;
}

/** Its name still tells where the live file begins. */
async function empty(path: string): Promise<void> {
  const file = await openPlain(path, constants.O_WRONLY | constants.O_TRUNC);
  await file?.close();
}
