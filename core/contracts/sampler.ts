import type { Resources } from "./agent.js";
import { defineSlot } from "./slot.js";
import type { ProcessRef } from "./spawner.js";

/** One live run, and who it is made of at this moment. */
export interface SampledRun {
  readonly agent_id: string;
  readonly run_id: string;
  /** Its whole tree, the agent's own process first. May be over by the time it is looked at. */
  readonly processes: readonly ProcessRef[];
}

/** What was measured of one run. `sampler-runner` adds the time. */
export type ResourceFigures = Omit<Resources, "sampled_at" | "pss_bytes">;

/**
 * Measures what runs use. The plugin `sampler-runner` asks the spawners for the processes, hands them over, and reports
 * what comes back; how figures are measured, and how often, is the sampler's.
 */
export interface Sampler {
  readonly name: string;
  /** How often it is asked. Above 0. */
  readonly intervalMs: number;
  /**
   * The figures of all these runs, by `run_id`. CPU is over the time since the call before, so a run
   * that was not in it may be missing until the next; so is one that is over. What the sampler keeps of
   * runs that are not among these is forgotten. Not called while an earlier call is under way, unless
   * that one takes longer than is waited.
   */
  sample(runs: readonly SampledRun[]): Promise<ReadonlyMap<string, ResourceFigures>>;
  /**
   * The proportional set size of these processes together, in bytes: memory that several share is
   * counted once. Expensive; on demand only. `undefined`: it may not be read, or they are gone. Absent: this sampler
   * cannot tell.
   */
  proportionalMemory?(processes: readonly ProcessRef[]): Promise<number | undefined>;
}

export const sampler = defineSlot<Sampler>("sampler", "one");
