import type { Agent, Cause, RunRecord } from "./agent.js";
import type { PinnedTemplate } from "./template-source.js";

/** Why a run is being ended: what its exit will be attributed to. `uncounted`: it is not a failure of the run. */
export interface Ending {
  cause: Cause;
  actor: string;
  reason: string;
  uncounted?: boolean;
}

/** An agent as the journal keeps it: what the API shows, and what is needed to start it again. */
export interface StoredAgent {
  agent: Agent;
  /** The revision that automatic restarts use. */
  template: PinnedTemplate;
  /** The template came with the request: there is no other revision of it to look for. */
  inline?: boolean;
  params: Record<string, unknown>;
  /** A config agent comes back at the next start after it was deleted; a service is its plugin's. */
  origin: "config" | "request" | "service";
  /** The spawner's own name for the live process: opaque to everybody else. */
  target?: unknown;
  /** What the restart policy wants to be reminded of: opaque to everybody else. */
  restart_memory?: unknown;
  /** Set while the run is being ended: what its exit will be attributed to. */
  ending?: Ending;
  /** A finished run whose `afterExit` has not been completed. */
  unreported?: RunRecord;
  /** The record goes when the run is over: an unfinished DELETE survives a crash. */
  deleting?: boolean;
  /** A policy keeps it in `pending` until released. */
  held?: { by: string; reason: string };
}
