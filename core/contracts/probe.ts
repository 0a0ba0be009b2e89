import { defineSlot } from "../slots.js";
import type { StandardSchema } from "../standard-schema.js";
import type { Agent } from "./agent.js";

/** What a probe tells of one run. */
export interface ProbeReport {
  ready(): void;
  /** `reason` in words, with the figures seen. */
  unhealthy(reason: string): void;
  healthy(): void;
}

export interface ProbeRun {
  readonly agent: Agent;
  readonly runId: string;
  readonly role: ProbeRole;
  /** The template's `readiness` or `liveness` section, validated by `options`. */
  readonly options: unknown;
  readonly report: ProbeReport;
  /** Aborted when the run is over, or its probe no longer wanted. */
  readonly signal: AbortSignal;
}

export type ProbeRole = "readiness" | "liveness";

/** Watches one run in one role. Named by the `type` that templates use. */
export interface Probe {
  readonly name: string;
  readonly roles: readonly ProbeRole[];
  readonly options: StandardSchema;
  /** Returns at once; reports until `run.signal` aborts. */
  watch(run: ProbeRun): void;
}

export const probe = defineSlot<Probe, "many">("probe", "many");

/** Runs the probes that templates name. Without one, a template with `readiness` or `liveness` is refused. */
export interface ProbeRunner {
  readonly name: string;
}

export const probeRunner = defineSlot<ProbeRunner, "one">("probeRunner", "one");
