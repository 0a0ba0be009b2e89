import { type Agent, isLive, isService } from "../../core/index.js";

export interface AdmissionOptions {
  /** So many agents with a process at a time. Absent: as many as there are. */
  maxRunning?: number | undefined;
  /** So many of them `starting`. */
  maxStarting?: number | undefined;
  /** Between two starts after memory pressure. */
  spacingMs: number;
}

export interface AdmissionDeps {
  monotonic: () => number;
  agents: () => readonly Agent[];
  /** Why no start is possible now, in words. */
  closed: () => string | undefined;
}

/** Lets starts through in order: the higher priority first, then who has waited longest. */
export interface Admission {
  /** `undefined`: it may start now. Else why it waits, in words, and when it is to ask again. */
  ask(agentId: string, priority: number): { reason: string; retryAfterMs: number } | undefined;
  /** It starts whatever waits, and takes a place. */
  letThrough(agentId: string): void;
  /** To be called now and then: forgets who asks no more. */
  tidy(): void;
}

interface Waiting {
  readonly agentId: string;
  readonly priority: number;
  /** Later than this it should have asked again: it waits for something else by now. */
  expiresAtMs: number;
}

/** The first of the queue asks again after this, the others somewhat later the further behind they are. */
const RETRY_MS = 1_000;
const RETRY_STEP_MS = 50;
const LONGEST_RETRY_MS = 10_000;
/** Who has not asked for so long over its time has left the queue. */
const LATE_MS = 5_000;
/** Who was let through and has no process after so long has been kept from starting by something else. */
const LAUNCH_MS = 60_000;

export function createAdmission(options: AdmissionOptions, deps: AdmissionDeps): Admission {
  const { maxRunning = Number.POSITIVE_INFINITY, maxStarting = Number.POSITIVE_INFINITY } = options;
  const isUncapped = options.maxRunning === undefined && options.maxStarting === undefined;
  let queue: Waiting[] = [];
  /** Let through, and without a process so far; with when. */
  const launching = new Map<string, number>();
  let lastMs = Number.NEGATIVE_INFINITY;
  /** There was memory pressure, and not all who waited for its end have started since. */
  let recovering = false;

  function tidy() {
    const now = deps.monotonic();
    const pending = new Set(
      deps
        .agents()
        .filter(isComing)
        .map(({ agent_id }) => agent_id),
    );
    queue = queue.filter(({ agentId, expiresAtMs }) => pending.has(agentId) && now < expiresAtMs);
    for (const [agentId, atMs] of launching) {
      if (!pending.has(agentId) || now - atMs > LAUNCH_MS) launching.delete(agentId);
    }
    if (deps.closed() !== undefined) recovering = true;
    else if (queue.length === 0) recovering = false;
  }

  /** How many may start now, and what keeps further ones, in words. */
  function room(): { places: number; reason: string } {
    const closed = deps.closed();
    if (closed !== undefined) return { places: 0, reason: `waits: ${closed}` };
    const live = deps.agents().filter((agent) => !isService(agent) && isLive(agent.state));
    const starting = live.filter(({ state }) => state === "starting").length;
    const caps = [
      {
        places: maxRunning - live.length - launching.size,
        reason: `waits: max_running of policy-memory-pressure allows ${maxRunning} at a time`,
      },
      {
        places: maxStarting - starting - launching.size,
        reason: `waits: max_starting of policy-memory-pressure allows ${maxStarting} at a time`,
      },
    ];
    if (recovering) {
      const places = deps.monotonic() - lastMs >= options.spacingMs ? 1 : 0;
      caps.push({ places, reason: "waits for its turn: after memory pressure one starts after the other" });
    }
    return caps.reduce((least, cap) => (cap.places < least.places ? cap : least));
  }

  /** Who waits already keeps its place, unless its priority has changed. */
  function enqueue(agentId: string, priority: number): Waiting {
    const known = queue.find((it) => it.agentId === agentId);
    if (known?.priority === priority) return known;
    const asking = { agentId, priority, expiresAtMs: Number.POSITIVE_INFINITY };
    queue = queue.filter((it) => it !== known);
    const behind = queue.findIndex((it) => it.priority < priority);
    queue.splice(behind < 0 ? queue.length : behind, 0, asking);
    return asking;
  }

  function letThrough(agentId: string) {
    queue = queue.filter((it) => it.agentId !== agentId);
    lastMs = deps.monotonic();
    launching.set(agentId, lastMs);
  }

  return {
    tidy,
    ask(agentId, priority) {
      if (isUncapped && !recovering && deps.closed() === undefined) return undefined;
      // Where it was let through before, nothing came of that.
      launching.delete(agentId);
      const asking = enqueue(agentId, priority);
      asking.expiresAtMs = Number.POSITIVE_INFINITY;
      tidy();
      const place = queue.indexOf(asking);
      const { places, reason } = room();
      if (place < places) {
        letThrough(agentId);
        return undefined;
      }
      const retryAfterMs = Math.min(RETRY_MS + place * RETRY_STEP_MS, LONGEST_RETRY_MS);
      asking.expiresAtMs = deps.monotonic() + retryAfterMs + LATE_MS;
      return { reason, retryAfterMs };
    },
    letThrough,
  };
}

/** Wanted, and without a process. */
function isComing({ state, desired }: Agent): boolean {
  return desired === "running" && state === "pending";
}
