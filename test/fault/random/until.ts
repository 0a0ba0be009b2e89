import { setTimeout as delay } from "node:timers/promises";

/** For a daemon to have become what was acknowledged, on a machine that has other work to do. */
const PATIENCE_MS = 40_000;
const PAUSE_MS = 25;

/** What time does not mend. */
class BrokenPromise extends Error {}

export function complain(where: string, complaints: readonly string[]): void {
  if (complaints.length === 0) return;
  throw new BrokenPromise(`${where}:\n${complaints.map((text) => `  ${text}`).join("\n")}`);
}

/** Tries until there is nothing to complain of. */
export async function until(look: () => string[] | Promise<string[]>): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    const complaints = await Promise.resolve()
      .then(look)
      .catch((error: Error) => {
        if (error instanceof BrokenPromise) throw error;
        return [error.message];
      });
    if (complaints.length === 0) return;
    if (performance.now() > deadline) complain(`after ${PATIENCE_MS} ms`, complaints);
    await delay(PAUSE_MS);
  }
}
