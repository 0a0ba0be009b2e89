import { statSync } from "node:fs";
import { join } from "node:path";
import type { Operator } from "../../helpers/operator.js";

interface Reading {
  life: string;
  cursor: string;
  /** The number of the last line, by run. */
  last: Map<string, number>;
}

interface Line {
  run_id: string;
  stream: string;
  text: string;
  /** Where output is rotated: of a line that is not all there, and of one before which something is missing. */
  partial?: boolean;
  gap?: string;
}

/** Before every run. */
const BEGINNING = "00000000-0000-0000-0000-000000000000:0-0";
const PAGE = 10_000;

/** Reads what agents have printed, each line once, and holds it against their own tallies. */
export interface LineCheck {
  /** What was lost, torn, printed twice or mixed up by now. `life` differs when an id is used anew. */
  check(operator: Operator, agentId: string, life: string): Promise<string[]>;
  readonly total: number;
}

export function createLineCheck(evidence: string): LineCheck {
  const readings = new Map<string, Reading>();
  let total = 0;

  const tally = (runId: string, side: "before" | "after") =>
    statSync(join(evidence, `${runId}.${side}`), { throwIfNoEntry: false })?.size ?? 0;

  function take(
    agentId: string,
    { last }: Reading,
    { run_id, stream, text, partial, gap }: Line,
  ): string | undefined {
    const [, n, run] = /^line (\d+) of (\S+) 0{300} ends here$/.exec(text) ?? [];
    const expected = (last.get(run_id) ?? 0) + 1;
    // There a shell tells that a child of it was killed.
    if (stream === "stderr") return undefined;
    total++;
    // Before the first line there is what the made-up cursor names, and nobody has.
    const missing = gap !== undefined && last.size > 0;
    if (run !== run_id || Number(n) !== expected || partial || missing)
      return `${agentId} ${run_id}: line ${expected} reads ${JSON.stringify({ text, partial, gap })}`;
    last.set(run_id, expected);
    return undefined;
  }

  return {
    get total() {
      return total;
    },
    async check(operator, agentId, life) {
      const known = readings.get(agentId);
      const reading = known?.life === life ? known : { life, cursor: BEGINNING, last: new Map() };
      readings.set(agentId, reading);
      const complaints: string[] = [];
      const atLeast = new Map([...reading.last.keys()].map((runId) => [runId, tally(runId, "after")]));
      for (;;) {
        const query = `tail=${PAGE}&cursor=${encodeURIComponent(reading.cursor)}`;
        const { status, json, text } = await operator.get(`/agents/${agentId}/logs?${query}`);
        if (status !== 200) return [`the output of ${agentId} was answered ${text}`];
        const items = json["items"] as Line[];
        complaints.push(...items.flatMap((item) => take(agentId, reading, item) ?? []));
        if (items.length === 0) break;
        reading.cursor = String(json["next_cursor"]);
      }
      for (const [runId, n] of reading.last) {
        const [least, most] = [atLeast.get(runId) ?? 0, tally(runId, "before")];
        if (n < least || n > most)
          complaints.push(`${agentId} ${runId}: ${n} lines, and it printed ${least} to ${most}`);
      }
      return complaints;
    },
  };
}
