import type { ResourceSample } from "../../core/index.js";

/** One sample, or several next to each other told as one. */
export interface HistoryPoint {
  readonly atMs: number;
  readonly runId: string;
  readonly cpuPercent: number;
  readonly memoryBytes: number;
  readonly processes: number;
}

/** The newest samples of each agent, in memory, over the ends of its runs. */
export interface SampleHistory {
  add(sample: ResourceSample): void;
  /** Those since then, oldest first. */
  read(agentId: string, sinceMs: number): HistoryPoint[];
  forget(agentId: string): void;
}

const MOST_PROCESSES = 2 ** 16 - 1;
/** Grown by doubling: most agents do not live as long as a ring is long. */
const FIRST_SAMPLES = 32;

/**
 * A full ring takes 18 bytes for each sample that it keeps. Memory comes in pages: up to 64 GiB of them are
 * exact in a Float32, and a larger amount is to seven digits. 65,535 processes stand for more, too.
 */
interface Ring {
  at: Float64Array;
  cpu: Float32Array;
  memory: Float32Array;
  processes: Uint16Array;
  /** How many there ever were: the place of the next, before it is wrapped around. */
  count: number;
  /** Oldest first; `from` counts as `count` does. */
  runs: { id: string; from: number }[];
}

/** `keep`: how many samples of an agent. */
export function createSampleHistory(keep: number): SampleHistory {
  const rings = new Map<string, Ring>();
  return {
    add(sample) {
      const ring = rings.get(sample.agent_id) ?? emptyRing(Math.min(FIRST_SAMPLES, keep));
      rings.set(sample.agent_id, ring);
      if (ring.count === ring.at.length && ring.count < keep) grow(ring, Math.min(2 * ring.count, keep));
      put(ring, sample);
    },
    read(agentId, sinceMs) {
      const ring = rings.get(agentId);
      return ring ? [...points(ring)].filter(({ atMs }) => atMs >= sinceMs) : [];
    },
    forget: (agentId) => void rings.delete(agentId),
  };
}

function emptyRing(size: number): Ring {
  return {
    at: new Float64Array(size),
    cpu: new Float32Array(size),
    memory: new Float32Array(size),
    processes: new Uint16Array(size),
    count: 0,
    runs: [],
  };
}

/** Only while nothing was written over yet. */
function grow(ring: Ring, size: number): void {
  const larger = emptyRing(size);
  for (const name of ["at", "cpu", "memory", "processes"] as const) larger[name].set(ring[name]);
  Object.assign(ring, larger, { count: ring.count, runs: ring.runs });
}

function put(ring: Ring, sample: ResourceSample): void {
  const place = ring.count % ring.at.length;
  ring.at[place] = Date.parse(sample.sampled_at);
  ring.cpu[place] = sample.cpu_percent;
  ring.memory[place] = sample.memory_bytes;
  ring.processes[place] = Math.min(sample.processes, MOST_PROCESSES);
  if (ring.runs.at(-1)?.id !== sample.run_id) ring.runs.push({ id: sample.run_id, from: ring.count });
  ring.count += 1;
  // The first is of no more samples once the second begins at the oldest that is kept, or before.
  const oldest = ring.count - ring.at.length;
  while ((ring.runs[1]?.from ?? Number.POSITIVE_INFINITY) <= oldest) ring.runs.shift();
}

function* points(ring: Ring): Generator<HistoryPoint> {
  const size = ring.at.length;
  let run = 0;
  for (let index = Math.max(0, ring.count - size); index < ring.count; index++) {
    while ((ring.runs[run + 1]?.from ?? Number.POSITIVE_INFINITY) <= index) run += 1;
    const place = index % size;
    yield {
      atMs: ring.at[place] ?? 0,
      runId: ring.runs[run]?.id ?? "",
      cpuPercent: Math.round((ring.cpu[place] ?? 0) * 10) / 10,
      memoryBytes: ring.memory[place] ?? 0,
      processes: ring.processes[place] ?? 0,
    };
  }
}

/**
 * As many next to each other told as one that no more than `most` are left, and one more for each further
 * run: of one run each, with the mean of CPU, so that the area below the curve stays, and the greatest
 * memory and number of processes, so that the peaks do. Its time is that of its last.
 */
export function thinOut(all: readonly HistoryPoint[], most: number): HistoryPoint[] {
  const size = Math.ceil(all.length / most);
  if (size <= 1) return [...all];
  const groups: HistoryPoint[][] = [];
  for (const point of all) {
    const last = groups.at(-1);
    if (last && last.length < size && last[0]?.runId === point.runId) last.push(point);
    else groups.push([point]);
  }
  return groups.flatMap((group) => {
    const last = group.at(-1);
    if (!last) return [];
    const cpu = group.reduce((sum, { cpuPercent }) => sum + cpuPercent, 0) / group.length;
    return {
      ...last,
      cpuPercent: Math.round(cpu * 10) / 10,
      memoryBytes: Math.max(...group.map(({ memoryBytes }) => memoryBytes)),
      processes: Math.max(...group.map(({ processes }) => processes)),
    };
  });
}
