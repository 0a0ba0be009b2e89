import { shareTail } from "../../kit/tail-share.js";
import { readRange } from "./lines.js";
import { openOutput } from "./output-reader.js";
import { STREAMS, type Stream } from "./segments.js";

const TAIL_BYTES = 4_096;

/** The last lines of what a run printed, at most 4 KiB: those of stdout, then those of stderr. */
export async function readTail(folder: string, runId: string): Promise<string | undefined> {
  const [stdout, stderr] = await Promise.all([lastOf("stdout"), lastOf("stderr")]);
  const last = { stdout, stderr };
  // Less the line end between the two.
  const shares = shareTail({ stdout: stdout.length, stderr: stderr.length }, TAIL_BYTES - 1);
  const texts = STREAMS.map((stream) => wholeLines(last[stream], shares[stream]));
  return texts.filter((text) => text !== "").join("\n") || undefined;

  async function lastOf(stream: Stream): Promise<Buffer> {
    const output = openOutput(folder, runId, stream, () => {});
    try {
      const { start, end } = await output.extent();
      return await readRange(output, Math.max(start, end - TAIL_BYTES), end);
    } finally {
      await output.close();
    }
  }
}

/** The lines that are whole in the last so many bytes; of a longer line its end. */
function wholeLines(bytes: Buffer, most: number): string {
  const text = bytes.subarray(Math.max(0, bytes.length - most)).toString("utf8");
  const firstLine = bytes.length > most ? text.indexOf("\n") + 1 : 0;
  return text.slice(firstLine).trimEnd() || text.trimEnd();
}
