import type { Terminal } from "./output.js";

/** What a command is given: its words, its options and where to print. */
export interface Invocation<Options = object> {
  operands: readonly string[];
  /** Those of the operands that stand behind `--`, which ends the options; absent when there is no `--`. */
  afterDashes?: readonly string[];
  options: Options;
  /** The daemon's folder, absolute. */
  home: string;
  /** Inside an agent of this home's daemon, and `--home` was not given: the daemon is spoken to as this agent, with its token. */
  asAgent: boolean;
  cwd: string;
  terminal: Terminal;
  env: NodeJS.ProcessEnv;
}

/** Answers the exit code; nothing means 0. Throws an OpenStarryError for what went wrong. */
export type CommandHandler<Options = object> = (
  invocation: Invocation<Options>,
) => Promise<number | undefined>;
