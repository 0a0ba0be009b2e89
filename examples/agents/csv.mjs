import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";

/**
 * Reads a CSV file (RFC 4180: quoted fields, doubled quotes, line ends inside quotes; CRLF or LF; a byte
 * order mark is skipped) record by record, so that its size does not matter. The delimiter is the most frequent of
 * comma, semicolon and tab in the first line.
 *
 * @param {string} path
 * @param {(share: number) => void} [onProgress] called with the share of the file that was read, 0 to 1
 * @returns {AsyncGenerator<string[]>} the header first
 */
export async function* readCsv(path, onProgress = () => {}) {
  const { size } = await stat(path);
  const parser = createParser();
  let bytes = 0;
  const stream = createReadStream(path);
  const decoder = new TextDecoder("utf-8"); // skips the byte order mark
  for await (const chunk of stream) {
    bytes += chunk.length;
    yield* parser.take(decoder.decode(chunk, { stream: true }));
    onProgress(size === 0 ? 1 : bytes / size);
  }
  yield* parser.take(decoder.decode());
  yield* parser.end();
}

/** Creates a CSV parser that takes text in pieces of any length. */
export function createParser() {
  /** @type {string | undefined} */
  let delimiter;
  let pending = "";
  let field = "";
  /** @type {string[]} */
  let record = [];
  let inQuotes = false;
  /** The last character was a quote inside quotes: a second one means a literal quote, anything else the end. */
  let afterQuote = false;
  let line = 1;
  let openedAt = 0;

  function endField() {
    record.push(field);
    field = "";
    afterQuote = false;
  }

  /** @returns {string[] | undefined} `undefined` for an empty line */
  function endRecord() {
    endField();
    const done = record;
    record = [];
    return done.length === 1 && done[0] === "" ? undefined : done;
  }

  /** @param {string} text */
  function* consume(text) {
    for (const char of text) {
      if (char === "\n") line++;
      if (inQuotes && !afterQuote) {
        if (char === '"') afterQuote = true;
        else field += char;
        continue;
      }
      if (afterQuote) {
        afterQuote = false;
        if (char === '"') {
          field += '"';
          continue;
        }
        inQuotes = false;
      }
      if (char === '"' && field === "") {
        inQuotes = true;
        openedAt = line;
      } else if (char === delimiter) {
        endField();
      } else if (char === "\n") {
        if (field.endsWith("\r")) field = field.slice(0, -1);
        const done = endRecord();
        if (done) yield done;
      } else {
        field += char;
      }
    }
  }

  return {
    /** @param {string} text */
    *take(text) {
      if (delimiter === undefined) {
        pending += text;
        const end = pending.indexOf("\n");
        if (end === -1) return;
        delimiter = guessDelimiter(pending.slice(0, end));
        yield* consume(pending);
      } else {
        yield* consume(text);
      }
    },
    *end() {
      if (delimiter === undefined) {
        delimiter = guessDelimiter(pending);
        yield* consume(pending);
      }
      if (inQuotes && !afterQuote) {
        throw new Error(`the quote opened in line ${openedAt} is never closed`);
      }
      if (field === "" && record.length === 0) return;
      const done = endRecord();
      if (done) yield done;
    },
  };
}

/** @param {string} firstLine */
function guessDelimiter(firstLine) {
  const counts = [",", ";", "\t"].map((mark) => ({ mark, count: firstLine.split(mark).length }));
  return counts.sort((a, b) => b.count - a.count)[0]?.mark ?? ",";
}
