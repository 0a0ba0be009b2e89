import type { Terminal } from "./output.js";

/** The input of a command: operands, options, and the terminal to print to. */
export interface Invocation<Options = object> {
  operands: readonly string[];
  /** The operands after `--`; absent without a `--`. */
  afterDashes?: readonly string[];
  options: Options;
  /** The daemon's folder, absolute. */
  home: string;
  /** Act as the agent that this process runs in, with its token: `--home` is not given, and the home is that agent's. */
  asAgent: boolean;
  cwd: string;
  terminal: Terminal;
  env: NodeJS.ProcessEnv;
}

/** Answers the exit code, `undefined` for 0. Rejects with an OpenStarryError. */
export type CommandHandler<Options = object> = (
  invocation: Invocation<Options>,
) => Promise<number | undefined>;
