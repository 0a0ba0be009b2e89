import { describe, expect, it } from "vitest";
import { pollingProbe } from "../../../../plugins/kit/probe-loop.js";
import { createRecorder } from "../../../contract/recorder.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";
import { watchRun } from "../../../helpers/probe-run.js";

/** A probe whose looks find what the test says: `undefined` is good, "hang" never answers, an error is thrown. */
function spoken(finds: (string | undefined | Error)[]) {
  const clock = createFakeClock();
  const { log, logged } = createRecorder();
  const signals: AbortSignal[] = [];
  const probe = pollingProbe(
    { clock, log },
    {
      name: "spoken",
      options: {},
      check: async (_run, _options, signal) => {
        signals.push(signal);
        const found = finds.length > 1 ? finds.shift() : finds[0];
        if (found === "hang") return new Promise(() => {});
        if (found instanceof Error) throw found;
        return found;
      },
    },
  );
  return { clock, probe, signals, logged };
}

describe("readiness", () => {
  it("looks at once, then every second, says why not, and is ready at the first good look", async () => {
    const { clock, probe, signals } = spoken(["not there", "not yet", undefined]);
    const { said } = watchRun(probe, "readiness");
    await clock.advance(0);
    expect(said).toEqual(["starting: not there"]);
    await clock.advance(1_000);
    expect(said).toEqual(["starting: not there", "starting: not yet"]);
    await clock.advance(1_000);
    expect(said.at(-1)).toBe("ready");
    expect(signals).toHaveLength(3);
  });
});

describe("liveness", () => {
  const bad = (times: number) => `unhealthy: it is down (${times} times in a row, every 10s)`;

  it("is unhealthy after three bad looks in a row, ten seconds apart, and not before", async () => {
    const { clock, probe } = spoken([undefined, "it is down"]);
    const { said } = watchRun(probe, "liveness");
    await clock.advance(29_999);
    expect(said).toEqual(["healthy"]);
    await clock.advance(1);
    expect(said).toEqual(["healthy", bad(3)]);
  });

  it("a good look forgives the bad ones before it", async () => {
    const { clock, probe } = spoken([
      "it is down",
      "it is down",
      undefined,
      "it is down",
      "it is down",
      undefined,
    ]);
    const { said } = watchRun(probe, "liveness");
    await clock.advance(60_000);
    expect(new Set(said)).toEqual(new Set(["healthy"]));
  });

  it("takes interval and misses from the template", async () => {
    const { clock, probe } = spoken(["it is down"]);
    const { said } = watchRun(probe, "liveness", { interval: "200ms", misses: 1 });
    await clock.advance(0);
    expect(said).toEqual(["unhealthy: it is down (once)"]);
    expect(() => watchRun(probe, "liveness", { interval: "10ms" })).toThrow(
      /interval: expected .* at least 100ms/,
    );
    expect(() => watchRun(probe, "liveness", { misses: 0 })).toThrow(/misses: /);
  });

  it("a look without an answer by the end of its interval is a miss, and is cut short", async () => {
    const { clock, probe, signals } = spoken(["hang"]);
    const { said } = watchRun(probe, "liveness", { misses: 2 });
    await clock.advance(19_999);
    expect(said).toEqual([]);
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, false]);
    await clock.advance(1);
    expect(said).toEqual(["unhealthy: no answer within 10s (2 times in a row, every 10s)"]);
  });

  it("what could not look counts neither way, and is told once", async () => {
    const broken = new Error("no such tool");
    const { clock, probe, logged } = spoken([
      "it is down",
      broken,
      broken,
      "it is down",
      broken,
      "it is down",
    ]);
    const { said } = watchRun(probe, "liveness");
    await clock.advance(49_999);
    expect(said).toEqual([]);
    expect(logged.filter(({ level }) => level === "warn")).toHaveLength(1);
    await clock.advance(1);
    expect(said).toEqual([bad(3)]);
  });

  it("looks no more once it is told to stop, and leaves no timer", async () => {
    const { clock, probe, signals } = spoken(["hang"]);
    const { stop, said } = watchRun(probe, "liveness");
    await clock.advance(5_000);
    stop();
    expect(signals[0]?.aborted).toBe(true);
    expect(clock.pending()).toBe(0);
    await clock.advance(100_000);
    expect(said).toEqual([]);
    expect(signals).toHaveLength(1);
  });
});
