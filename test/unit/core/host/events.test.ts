import { describe, expect, it } from "vitest";
import { createEventHub } from "../../../../core/host/events.js";
import type { DaemonEvent } from "../../../../core/index.js";

const at = "2026-01-01T00:00:00.000Z";
const ready: DaemonEvent = { id: 1, type: "daemon.ready", at, data: { version: "1", pid: 2 } };
const beat: DaemonEvent = { id: 2, type: "agent.heartbeat", at, agent_id: "a", data: { status: "x" } };

function listening() {
  const hub = createEventHub();
  const faults: unknown[] = [];
  const plugin = { stopped: false };
  const events = hub.listenersOf({ isStopped: () => plugin.stopped, onFault: (error) => faults.push(error) });
  return { hub, events, faults, plugin };
}

describe("listeners of events", () => {
  it("get the events of their type, or all of them, in order", () => {
    const { hub, events } = listening();
    const [all, statuses]: [number[], unknown[]] = [[], []];
    events.onAny(({ id }) => all.push(id));
    events.on("agent.heartbeat", ({ data }) => statuses.push(data.status));
    hub.publish([ready, beat]);
    expect(all).toEqual([1, 2]);
    expect(statuses).toEqual(["x"]);
  });

  it("end when they unsubscribe, also while an event is told", () => {
    const { hub, events } = listening();
    const seen: number[] = [];
    const unsubscribe = events.onAny(({ id }) => {
      seen.push(id);
      unsubscribe();
    });
    hub.publish([ready, beat]);
    expect(seen).toEqual([1]);
  });

  it("end with their plugin", () => {
    const { hub, events, plugin } = listening();
    const seen: number[] = [];
    events.onAny(({ id }) => seen.push(id));
    hub.publish([ready]);
    plugin.stopped = true;
    hub.publish([beat]);
    plugin.stopped = false;
    hub.publish([beat]);
    expect(seen).toEqual([1]);
  });

  it("that throw are reported, and the others still get the event", () => {
    const { hub, events, faults } = listening();
    const seen: number[] = [];
    const error = new Error("boom");
    events.on("daemon.ready", () => {
      throw error;
    });
    events.onAny(({ id }) => seen.push(id));
    hub.publish([ready, beat]);
    expect(faults).toEqual([error]);
    expect(seen).toEqual([1, 2]);
  });
});
