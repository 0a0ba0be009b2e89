import { styleText } from "node:util";

export type Style = "bold" | "dim" | "red" | "green" | "yellow" | "blue" | "magenta" | "cyan";

/** The output of a command. */
export interface Terminal {
  /** Prints one line to standard output. */
  print(line: string): void;
  /** Writes bytes unchanged to standard output. Resolves when more can be written. */
  write(bytes: Uint8Array | string): Promise<void>;
  /** Prints one line to standard error. */
  warn(line: string): void;
  /** Prints a value as JSON: indented, or on one line for streams. */
  json(value: unknown, how?: "line"): void;
  /** Styles text if colours are on. */
  style(text: string, ...styles: Style[]): string;
  readonly isTTY: boolean;
  /** Absent: lines may have any length. */
  readonly columns?: number;
}

/** Decides whether to use colours: `NO_COLOR` and `TERM=dumb` turn them off, `FORCE_COLOR` on; otherwise on terminals. */
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

/** Styles a text without regard to the process's own output: `wantsColour` has decided. */
export function paint(text: string, ...styles: Style[]): string {
  return text === "" ? text : styleText(styles, text, { validateStream: false });
}
