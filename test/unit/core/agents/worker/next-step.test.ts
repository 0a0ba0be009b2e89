import { describe, expect, it } from "vitest";
import { nextStep, type Step, type WorkerView } from "../../../../../core/agents/worker/next-step.js";
import { AGENT_STATES, type AgentState } from "../../../../../core/index.js";

/** An agent that runs and is desired to: everything that a row does not say. */
const QUIET: WorkerView = {
  state: "running",
  desired: "running",
  hasOutcome: false,
  hasUnreportedRun: false,
  hasHandle: true,
  isEnding: false,
  isDeleting: false,
  noMoreStarts: false,
};

const TABLE: [what: string, view: Partial<WorkerView>, step: Step][] = [
  // What has happened comes first.
  ["a run that ended is settled", { hasOutcome: true }, "settle"],
  [
    "a run that ended while it was being stopped is settled",
    { hasOutcome: true, state: "stopping", desired: "stopped" },
    "settle",
  ],
  [
    "an end comes before the report of an earlier one",
    { hasOutcome: true, hasUnreportedRun: true },
    "settle",
  ],
  [
    "a finished run is reported before the agent starts again",
    { hasUnreportedRun: true, state: "pending", hasHandle: false },
    "report-exit",
  ],
  [
    "a finished run is reported before its record goes",
    { hasUnreportedRun: true, state: "exited", hasHandle: false, isDeleting: true },
    "report-exit",
  ],
  // A live run.
  ["a run that is desired is left alone", {}, "wait"],
  ["a starting run is left alone", { state: "starting" }, "wait"],
  ["a run that is not desired is stopped", { desired: "stopped" }, "stop-run"],
  ["a starting run that is not desired is stopped", { state: "starting", desired: "stopped" }, "stop-run"],
  ["a run that is being replaced is stopped", { isEnding: true }, "stop-run"],
  [
    "a stop under way is asked for again: its grace may be shorter now",
    { state: "stopping", desired: "stopped" },
    "stop-run",
  ],
  ["a live run of a deleted agent is stopped first", { isDeleting: true, desired: "stopped" }, "stop-run"],
  ["a run that no spawner holds yet is left alone", { hasHandle: false, desired: "stopped" }, "wait"],
  ["a run is left alone when the daemon lets go", { noMoreStarts: true }, "wait"],
  // No live run.
  ["an agent that is due is started", { state: "pending", hasHandle: false }, "launch"],
  [
    "nothing is started while the daemon stops",
    { state: "pending", hasHandle: false, noMoreStarts: true },
    "wait",
  ],
  [
    "a start that is not desired any more is dropped",
    { state: "pending", hasHandle: false, desired: "stopped" },
    "rest",
  ],
  [
    "a backoff that is not desired any more ends",
    { state: "backoff", hasHandle: false, desired: "stopped" },
    "rest",
  ],
  ["a backoff runs its time", { state: "backoff", hasHandle: false }, "wait"],
  ["a stopped agent stays so", { state: "stopped", hasHandle: false, desired: "stopped" }, "wait"],
  [
    "an agent that exited stays so, though it is desired running",
    { state: "exited", hasHandle: false },
    "wait",
  ],
  ["an agent that failed stays so", { state: "failed", hasHandle: false }, "wait"],
  [
    "an ended agent that is deleted is forgotten",
    { state: "exited", hasHandle: false, isDeleting: true },
    "forget",
  ],
  [
    "an agent that never started is forgotten",
    { state: "pending", hasHandle: false, isDeleting: true, desired: "stopped" },
    "forget",
  ],
];

describe("the next step of an agent's worker", () => {
  it.each(TABLE)("%s", (_, view, step) => {
    expect(nextStep({ ...QUIET, ...view })).toBe(step);
  });

  const flags = [
    "hasOutcome",
    "hasUnreportedRun",
    "hasHandle",
    "isEnding",
    "isDeleting",
    "noMoreStarts",
  ] as const;
  const every = AGENT_STATES.flatMap((state) =>
    (["running", "stopped"] as const).flatMap((desired) =>
      Array.from({ length: 2 ** flags.length }, (_, bits) => ({
        state,
        desired,
        ...(Object.fromEntries(flags.map((flag, index) => [flag, (bits & (1 << index)) !== 0])) as Record<
          (typeof flags)[number],
          boolean
        >),
      })),
    ),
  );
  const LIVE: AgentState[] = ["starting", "running", "stopping"];

  it("never starts, forgets or rests an agent that has a live run or an end to record", () => {
    for (const view of every.filter((it) => it.hasOutcome || it.hasUnreportedRun || LIVE.includes(it.state)))
      expect(["launch", "forget", "rest"]).not.toContain(nextStep(view));
  });

  it("never starts what is not desired, is deleted, or comes while the daemon stops", () => {
    for (const view of every.filter((it) => it.desired === "stopped" || it.isDeleting || it.noMoreStarts))
      expect(nextStep(view)).not.toBe("launch");
  });

  it("stops only a run that this daemon holds", () => {
    for (const view of every.filter((it) => !it.hasHandle)) expect(nextStep(view)).not.toBe("stop-run");
  });
});
