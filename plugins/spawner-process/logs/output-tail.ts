import { readRange } from "./lines.js";
import { openOutput } from "./output-reader.js";
import { STREAMS } from "./pieces.js";

const TAIL_BYTES = 4_096;

/** The last lines of what a run printed, at most 4 KiB; of stderr, or of stdout when there is nothing on it. */
export async function readTail(folder: string, runId: string): Promise<string | undefined> {
  for (const stream of [...STREAMS].reverse()) {
    const output = openOutput(folder, runId, stream, () => {});
    try {
      const { start, end } = await output.extent();
      const bytes = await readRange(output, Math.max(start, end - TAIL_BYTES), end);
      if (bytes.length === 0) continue;
      const text = bytes.toString("utf8");
      const firstLine = end - start > TAIL_BYTES ? text.indexOf("\n") + 1 : 0;
      return text.slice(firstLine).trimEnd();
    } finally {
      await output.close();
    }
  }
  return undefined;
}
