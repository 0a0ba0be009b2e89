import { PassThrough } from "node:stream";
import { createTerminal, type Terminal } from "../../bin/output.js";

/** A terminal that keeps what is printed. */
export function createTestTerminal(options: { columns?: number; env?: NodeJS.ProcessEnv } = {}): {
  terminal: Terminal;
  stdout(): string;
  stderr(): string;
} {
  const [out, err] = [new PassThrough(), new PassThrough()];
  const texts = { out: "", err: "" };
  out.setEncoding("utf8").on("data", (text: string) => {
    texts.out += text;
  });
  err.setEncoding("utf8").on("data", (text: string) => {
    texts.err += text;
  });
  const tty = options.columns === undefined ? {} : { isTTY: true, columns: options.columns };
  const terminal = createTerminal(
    Object.assign(out, tty) as unknown as NodeJS.WriteStream,
    err as unknown as NodeJS.WriteStream,
    options.env ?? {},
  );
  return { terminal, stdout: () => texts.out, stderr: () => texts.err };
}
