import { styleText } from "node:util";

export type Style = "bold" | "dim" | "red" | "green" | "yellow" | "blue" | "magenta" | "cyan";

/** Where a command prints, and what may be printed there. */
export interface Terminal {
  /** One line, to standard output. */
  print(line: string): void;
  /** Bytes as they are, to standard output. Resolves when more may come. */
  write(bytes: Uint8Array | string): Promise<void>;
  /** One line, to standard error. */
  warn(line: string): void;
  /** A value as JSON: indented, or on one line for streams. */
  json(value: unknown, how?: "line"): void;
  /** Wraps text in a colour where colours are wanted. */
  style(text: string, ...styles: Style[]): string;
  readonly isTTY: boolean;
  /** Absent: lines may be as long as they like. */
  readonly columns?: number;
}

/** `NO_COLOR` and `TERM=dumb` switch colours off, `FORCE_COLOR` on; else a terminal decides. */
export function wantsColour(isTTY: boolean, env: NodeJS.ProcessEnv): boolean {
  if (env.NO_COLOR) return false;
  if (env.FORCE_COLOR !== undefined) return env.FORCE_COLOR !== "0";
  return isTTY && env.TERM !== "dumb";
}

export function createTerminal(
  stdout: NodeJS.WriteStream,
  stderr: NodeJS.WriteStream,
  env: NodeJS.ProcessEnv = process.env,
): Terminal {
  const isTTY = Boolean(stdout.isTTY);
  const colours = wantsColour(isTTY, env);
  return {
    isTTY,
    columns: isTTY && stdout.columns ? stdout.columns : undefined,
    print: (line) => void stdout.write(`${line}\n`),
    warn: (line) => void stderr.write(`${line}\n`),
    json: (value, how) => void stdout.write(`${JSON.stringify(value, undefined, how === "line" ? 0 : 2)}\n`),
    style: (text, ...styles) => (colours ? paint(text, ...styles) : text),
    write: (bytes) =>
      new Promise((resolve) => {
        if (stdout.write(bytes)) resolve();
        else stdout.once("drain", resolve);
      }),
  };
}

/** Colours a text, whatever the process' own output is: see `wantsColour`. */
export function paint(text: string, ...styles: Style[]): string {
  return text === "" ? text : styleText(styles, text, { validateStream: false });
}
