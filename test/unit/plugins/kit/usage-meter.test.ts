import { describe, expect, it } from "vitest";
import { ownStartTicks, type ProcessReading, TICK_MS } from "../../../../plugins/kit/proc-stat.js";
import { createUsageMeter } from "../../../../plugins/kit/usage-meter.js";

/** A meter that looks at one run; times are in milliseconds by `performance.now()`. */
function meterOfOneRun() {
  const meter = createUsageMeter();
  return (atMs: number, processes: readonly ProcessReading[]) =>
    meter.look([{ run_id: "run", processes, atMs }], atMs).get("run");
}

/** A process that began at `startedMs`. */
function reading(
  pid: number,
  { startedMs = 0, ownMs = 0, endedMs = 0, ppid = 1, memoryBytes = 1_000 } = {},
): ProcessReading {
  return { pid, ppid, start_ticks: ownStartTicks() + startedMs / TICK_MS, ownMs, endedMs, memoryBytes };
}

describe("a usage meter", () => {
  it("tells nothing of a run that was there before it, until the second look", () => {
    const look = meterOfOneRun();
    expect(look(10_000, [reading(7, { ownMs: 9_000 })])).toBeUndefined();
    expect(look(11_000, [reading(7, { ownMs: 9_500 })])).toEqual({
      cpu_percent: 50,
      cpu_ms: 9_500,
      memory_bytes: 1_000,
      processes: 1,
    });
  });

  it("counts a run that began since the look before from its beginning", () => {
    const look = meterOfOneRun();
    look(10_000, []);
    expect(look(11_000, [reading(7, { startedMs: 10_500, ownMs: 250 })])).toMatchObject({
      cpu_percent: 50,
      cpu_ms: 250,
    });
  });

  it("waits for the next look where a run has only just begun", () => {
    const look = meterOfOneRun();
    look(10_000, []);
    expect(look(11_000, [reading(7, { startedMs: 10_990, ownMs: 10 })])).toBeUndefined();
    expect(look(12_000, [reading(7, { startedMs: 10_990, ownMs: 515 })])).toMatchObject({ cpu_percent: 51 });
  });

  it("says again what it said, when it is asked again too soon", () => {
    const look = meterOfOneRun();
    look(10_000, [reading(7)]);
    look(11_000, [reading(7, { ownMs: 300 })]);
    expect(look(11_050, [reading(7, { ownMs: 350, memoryBytes: 5_000 })])).toMatchObject({
      cpu_percent: 30,
      memory_bytes: 5_000,
    });
    expect(look(12_000, [reading(7, { ownMs: 400 })])).toMatchObject({ cpu_percent: 10 });
  });

  it("begins anew for a pid that another process has now", () => {
    const look = meterOfOneRun();
    look(10_000, [reading(7), reading(8, { ownMs: 8_000 })]);
    const again = reading(8, { startedMs: 10_800, ownMs: 100 });
    expect(look(11_000, [reading(7), again])).toMatchObject({ cpu_percent: 10, cpu_ms: 8_100 });
  });

  it("counts a process that it missed so far from when it sees it", () => {
    const look = meterOfOneRun();
    look(10_000, [reading(7)]);
    look(11_000, [reading(7)]);
    expect(look(12_000, [reading(7), reading(8, { ownMs: 9_000 })])).toMatchObject({ cpu_percent: 0 });
    expect(look(13_000, [reading(7), reading(8, { ownMs: 9_500 })])).toMatchObject({ cpu_percent: 50 });
  });

  it("counts a child that came and went, once its parent has waited for it", () => {
    const look = meterOfOneRun();
    look(10_000, [reading(7)]);
    expect(look(11_000, [reading(7, { endedMs: 700 })])).toMatchObject({ cpu_percent: 70, cpu_ms: 700 });
  });

  it("counts what it has seen of a child no second time when its parent waits for it", () => {
    const look = meterOfOneRun();
    look(10_000, [reading(7), reading(8, { ppid: 7 })]);
    look(11_000, [reading(7), reading(8, { ppid: 7, ownMs: 1_000 })]);
    // 200 ms more until its end, and all of it now stands with the parent.
    expect(look(12_000, [reading(7, { endedMs: 1_200 })])).toMatchObject({ cpu_percent: 20, cpu_ms: 1_200 });
    expect(look(13_000, [reading(7, { endedMs: 1_200 })])).toMatchObject({ cpu_percent: 0, cpu_ms: 1_200 });
  });

  it("remembers that while the child is a zombie", () => {
    const look = meterOfOneRun();
    look(10_000, [reading(7), reading(8, { ppid: 7 })]);
    look(11_000, [reading(7), reading(8, { ppid: 7, ownMs: 1_000 })]);
    expect(look(12_000, [reading(7)])).toMatchObject({ cpu_percent: 0, cpu_ms: 1_000 });
    expect(look(13_000, [reading(7, { endedMs: 1_000 })])).toMatchObject({ cpu_percent: 0, cpu_ms: 1_000 });
  });

  it("finds the one that waited when several generations end at once", () => {
    const look = meterOfOneRun();
    const tree = (ownMs: number) => [reading(7), reading(8, { ppid: 7 }), reading(9, { ppid: 8, ownMs })];
    look(10_000, tree(0));
    look(11_000, tree(900));
    expect(look(12_000, [reading(7, { endedMs: 950 })])).toMatchObject({ cpu_percent: 5, cpu_ms: 950 });
  });

  it("takes nothing away when one ends that nobody in the run waits for", () => {
    const look = meterOfOneRun();
    look(10_000, [reading(7), reading(8, { ppid: 1 })]);
    look(11_000, [reading(7), reading(8, { ppid: 1, ownMs: 1_000 })]);
    expect(look(12_000, [reading(7, { ownMs: 100, endedMs: 200 })])).toMatchObject({
      cpu_percent: 30,
      cpu_ms: 1_300,
    });
  });

  it("goes on after the machine was asleep, when ticks are ahead of Node's clock", () => {
    const look = meterOfOneRun();
    look(10_000, []);
    const slept = { startedMs: 3_600_000, ownMs: 400 };
    expect(look(11_000, [reading(7, slept)])).toMatchObject({ cpu_percent: 40 });
    expect(look(12_000, [reading(7, { ...slept, ownMs: 500 })])).toMatchObject({ cpu_percent: 10 });
  });

  it("forgets a run that it is not asked about", () => {
    const look = meterOfOneRun();
    look(10_000, [reading(7)]);
    look(11_000, [reading(7, { ownMs: 100 })]);
    look(12_000, []);
    expect(look(13_000, [reading(7, { ownMs: 900 })])).toBeUndefined();
  });
});
