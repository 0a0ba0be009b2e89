import { describe, expect, it } from "vitest";
import type { ResourceSample } from "../../../../core/index.js";
import { createSampleHistory, thinOut } from "../../../../plugins/operation-agents/sample-history.js";

const BEGAN = Date.parse("2026-01-01T00:00:00.000Z");

/** The sample of second `second`: its memory says which it is. */
function sample(second: number, more: Partial<ResourceSample> = {}): ResourceSample {
  return {
    agent_id: "a",
    run_id: "first",
    cpu_percent: 1,
    cpu_ms: 0,
    memory_bytes: second,
    processes: 1,
    sampled_at: new Date(BEGAN + second * 1_000).toISOString(),
    ...more,
  };
}

function filled(keep: number, samples: readonly ResourceSample[]) {
  const history = createSampleHistory(keep);
  for (const it of samples) history.add(it);
  return history;
}

const seconds = (from: number, to: number, more: Partial<ResourceSample> = {}) =>
  Array.from({ length: to - from }, (_, index) => sample(from + index, more));
const memoryOf = (history: ReturnType<typeof createSampleHistory>, sinceMs = 0) =>
  history.read("a", sinceMs).map(({ memoryBytes }) => memoryBytes);

describe("a history of samples", () => {
  it.each([0, 1, 31, 32, 33, 64, 99, 100, 101, 250, 1_000])("of 100 keeps the last of %i", (count) => {
    const expected = seconds(Math.max(0, count - 100), count).map(({ memory_bytes }) => memory_bytes);
    expect(memoryOf(filled(100, seconds(0, count)))).toEqual(expected);
  });

  it("keeps one, if that is what it shall keep", () => {
    expect(memoryOf(filled(1, seconds(0, 5)))).toEqual([4]);
  });

  it("answers what is no older than asked for", () => {
    expect(memoryOf(filled(10, seconds(0, 20)), BEGAN + 17_000)).toEqual([17, 18, 19]);
  });

  it("tells of which run each sample is, also when the ring has gone around", () => {
    const runs = [seconds(0, 8), seconds(8, 11, { run_id: "second" }), seconds(11, 15, { run_id: "third" })];
    const history = filled(10, runs.flat());
    expect(history.read("a", 0).map(({ runId }) => runId)).toEqual([
      ...["first", "first", "first"],
      ...["second", "second", "second"],
      ...["third", "third", "third", "third"],
    ]);
  });

  it("forgets an agent, and knows nothing of one that it never saw", () => {
    const history = filled(10, [sample(1), sample(1, { agent_id: "b" })]);
    history.forget("a");
    expect(history.read("a", 0)).toEqual([]);
    expect(history.read("b", 0)).toHaveLength(1);
  });

  it("keeps what it was given", () => {
    const given = { cpu_percent: 234.5, memory_bytes: 64 * 2 ** 30 - 4_096, processes: 40_000 };
    expect(filled(10, [sample(1, given)]).read("a", 0)).toEqual([
      {
        atMs: BEGAN + 1_000,
        runId: "first",
        cpuPercent: 234.5,
        memoryBytes: 64 * 2 ** 30 - 4_096,
        processes: 40_000,
      },
    ]);
  });
});

describe("thinning out", () => {
  const points = (samples: readonly ResourceSample[]) => filled(1_000, samples).read("a", 0);

  it("leaves alone what is few enough", () => {
    const few = points(seconds(0, 10));
    expect(thinOut(few, 10)).toEqual(few);
  });

  it("keeps the mean of CPU, and the peaks of memory and processes", () => {
    const all = points([
      sample(0, { cpu_percent: 0, memory_bytes: 10, processes: 9 }),
      sample(1, { cpu_percent: 100, memory_bytes: 90, processes: 1 }),
      sample(2, { cpu_percent: 50, memory_bytes: 20, processes: 2 }),
      sample(3, { cpu_percent: 60, memory_bytes: 10, processes: 2 }),
    ]);
    expect(thinOut(all, 2)).toMatchObject([
      { atMs: BEGAN + 1_000, cpuPercent: 50, memoryBytes: 90, processes: 9 },
      { atMs: BEGAN + 3_000, cpuPercent: 55, memoryBytes: 20, processes: 2 },
    ]);
  });

  it.each([1, 2, 3, 7, 99, 100])("never answers more than %i of one run", (most) => {
    expect(thinOut(points(seconds(0, 100)), most).length).toBeLessThanOrEqual(most);
  });

  it("tells no samples of two runs as one", () => {
    const all = points([...seconds(0, 5), ...seconds(5, 10, { run_id: "second" })]);
    expect(thinOut(all, 1).map(({ runId, atMs }) => [runId, atMs - BEGAN])).toEqual([
      ["first", 4_000],
      ["second", 9_000],
    ]);
  });
});
