import type { Agent } from "./agent.js";
import { defineSlot } from "./slot.js";
import type { StandardSchema } from "./standard-schema.js";

/** What a probe tells of one run. */
export interface ProbeReport {
  ready(): void;
  /**
   * Not ready yet. `reason`: why, in words; it is shown, and told when the start fails. `withinMs`: the
   * agent asks for so long from now, where its readiness timeout leaves it less.
   */
  starting(note: { reason?: string; withinMs?: number }): void;
  /** `reason` in words, with the figures seen. */
  unhealthy(reason: string): void;
  healthy(): void;
}

export interface ProbeRun {
  readonly agent: Agent;
  readonly runId: string;
  readonly role: ProbeRole;
  /** The template's `readiness` or `liveness` section, placeholders filled in, validated by `options`. */
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
  /** Why it cannot be used on this machine: templates that name it are refused with this. */
  readonly unavailable?: string;
  /** Returns at once; reports until `run.signal` aborts. */
  watch(run: ProbeRun): void;
}

export const probe = defineSlot<Probe, "many">("probe", "many");

/** Runs the probes that templates name. */
export interface ProbeRunner {
  readonly name: string;
  /**
   * The probe that the agent's template names for a role. `undefined`: none. Throws `template_invalid` where no
   * plugin provides it any more.
   */
  probeOf(agentId: string, role: ProbeRole): ChosenProbe | undefined;
}

export const probeRunner = defineSlot<ProbeRunner, "one">("probeRunner", "one");

/** A probe at work in one role, with the options that it is to watch by. */
export interface ChosenProbe {
  readonly probe: Probe;
  readonly options: unknown;
}
