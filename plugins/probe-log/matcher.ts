import { createContext, Script } from "node:vm";

/** What follows in a longer line is not looked at. */
export const MAX_LINE_BYTES = 8 * 1024;

/** A pattern that is not through with some lines by then, twice, never is. */
const LIMIT_MS = 100;

/** Tries patterns on lines, within a limit of time. */
export interface Matcher {
  /** Whether one of the lines fits. Throws when the pattern takes too long. */
  fits(pattern: string, lines: readonly string[]): boolean;
}

/**
 * A pattern such as `(a+)+$` can take longer than the sun has left, on one line, and would hold up the whole
 * daemon. Scripts of node:vm can be given a limit, and V8 interrupts a regular expression in them as well.
 */
export function createMatcher(): Matcher {
  let inside: { pattern: RegExp | undefined; lines: readonly string[] } | undefined;
  const script = new Script("lines.some((line) => pattern.test(line))");
  return {
    fits(pattern, lines) {
      inside ??= createContext({ pattern: undefined, lines: [] }) as NonNullable<typeof inside>;
      Object.assign(inside, { pattern: new RegExp(pattern), lines });
      for (let attempt = 1; ; attempt++) {
        try {
          return script.runInContext(inside, { timeout: LIMIT_MS }) as boolean;
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== "ERR_SCRIPT_EXECUTION_TIMEOUT") throw error;
          if (attempt === 2)
            throw new Error(`the pattern ${pattern} takes too long on what the agent prints`);
        }
      }
    },
  };
}
