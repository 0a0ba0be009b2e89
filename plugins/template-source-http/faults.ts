import { type Clock, rfc3339 } from "../../core/index.js";

/** Since when the service has given no good answer about something, and what the last one was. */
export interface Fault {
  sinceMs: number;
  why: string;
  /** It answered, and with a document that cannot be used. */
  isDocument: boolean;
}

export interface FaultsOptions {
  clock: Pick<Clock, "now">;
  /** The ids that the cache stands in for. */
  inCache: () => ReadonlySet<string>;
  /** Called with words when they have changed, and with `undefined` when all is well again. */
  tell: (words: string | undefined) => void;
}

const SHOWN_IDS = 10;
const SHOWN_REASONS = 3;

/** What is wrong with the service: by template, and its list under `""`. */
export function createFaults({ clock, inCache, tell }: FaultsOptions) {
  const faults = new Map<string, Fault>();
  let told: string | undefined;
  let rounds = 0;

  function words(): string | undefined {
    if (faults.size === 0) return undefined;
    const all = [...faults.values()];
    const since = rfc3339(Math.min(...all.map(({ sinceMs }) => sinceMs)));
    const reasons = [...new Set(all.map(({ why }) => why))];
    const kept = inCache();
    const served = [...faults.keys()].filter((id) => kept.has(id));
    return [
      `${few(reasons, SHOWN_REASONS, "; ")} (since ${since})`,
      served.length > 0 ? `from the cache: ${few(served, SHOWN_IDS, ", ")}` : "nothing comes from the cache",
    ].join("; ");
  }

  function changed(): void {
    if (rounds > 0) return;
    const now = words();
    if (now === told) return;
    told = now;
    tell(now);
  }

  return {
    /** What changes meanwhile is told at once, at its end. */
    async during(work: () => Promise<void>): Promise<void> {
      rounds += 1;
      try {
        await work();
      } finally {
        rounds -= 1;
        changed();
      }
    },
    get: (key: string) => faults.get(key),
    entries: () => [...faults],
    note(keys: readonly string[], { why, isDocument }: Omit<Fault, "sinceMs">): void {
      for (const key of keys) {
        faults.set(key, { sinceMs: faults.get(key)?.sinceMs ?? clock.now(), why, isDocument });
      }
      changed();
    },
    clear(key: string): void {
      if (faults.delete(key)) changed();
    },
  };
}

function few(items: readonly string[], count: number, separator: string): string {
  const more = items.length > count ? ` and ${items.length - count} more` : "";
  return items.slice(0, count).join(separator) + more;
}
