import { beforeEach, expect, it } from "vitest";
import { createRememberingGuard } from "../../../../plugins/bus-mqtt/broker/guard.js";
import { createFakeClock, type FakeClock } from "../../../helpers/fake-clock.js";

const who = { name: "agent:a", agentId: "a", runId: "run-1" };

let clock: FakeClock;
let asked: Record<string, unknown>[];
/** What the daemon says; absent: there is none. */
let daemon: ((question: Record<string, unknown>) => Record<string, unknown>) | undefined;
let hangs: boolean;
let listeners: Set<() => void>;
let guard: ReturnType<typeof createRememberingGuard>;
beforeEach(() => {
  clock = createFakeClock();
  asked = [];
  listeners = new Set();
  hangs = false;
  daemon = ({ do: what }) => (what === "identify" ? { identity: who } : { allowed: true });
  guard = createRememberingGuard({
    async ask(question) {
      asked.push(question as Record<string, unknown>);
      if (hangs) return new Promise(() => {});
      if (!daemon) throw new Error("no daemon is there");
      return daemon(question as Record<string, unknown>);
    },
    onDaemon(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    clock,
  });
});

it("asks once within some seconds, and then again", async () => {
  for (let time = 0; time < 3; time++) expect(await guard.identify("secret")).toEqual(who);
  for (let time = 0; time < 3; time++) expect(await guard.mayPublish(who, "shared/t")).toBe(true);
  expect(asked).toHaveLength(2);
  await clock.advance(5_000);
  daemon = () => ({ allowed: false });
  expect(await guard.identify("secret")).toBeUndefined();
  expect(await guard.mayPublish(who, "shared/t")).toBe(false);
  expect(asked).toHaveLength(4);
});

it("lets in those whom it knows while there is no daemon, and lets others wait", async () => {
  await guard.identify("secret");
  await guard.maySubscribe(who, "shared/#");
  daemon = undefined;
  await clock.advance(3_600_000);
  expect(await guard.identify("secret")).toEqual(who);
  expect(await guard.maySubscribe(who, "shared/#")).toBe(true);
  const stranger = guard.identify("another secret");
  await clock.advance(9_000);
  daemon = () => ({ identity: who });
  for (const listener of [...listeners]) listener();
  expect(await stranger).toEqual(who);
  expect(listeners.size).toBe(0);
  daemon = undefined;
  // Nobody has refused it.
  const unanswered = expect(guard.mayPublish(who, "never/asked")).rejects.toThrow();
  await clock.advance(10_000);
  await unanswered;
  expect([listeners.size, clock.pending()]).toEqual([0, 0]);
});

it("asks anew about the topics of an agent whose id may be another's", async () => {
  await guard.maySubscribe(who, "agents/b/#");
  await guard.mayPublish(who, "agents/b/inbox");
  await guard.mayPublish(who, "shared/t");
  guard.forgetOwner("b");
  daemon = () => ({ allowed: false });
  expect(await guard.maySubscribe(who, "agents/b/#")).toBe(false);
  expect(await guard.mayPublish(who, "agents/b/inbox")).toBe(false);
  expect(await guard.mayPublish(who, "shared/t")).toBe(true);
});

it("forgets a run that is over", async () => {
  await guard.identify("secret");
  expect([...guard.runs()]).toEqual(["run-1"]);
  guard.forgetRun("run-1");
  expect([...guard.runs()]).toEqual([]);
  daemon = undefined;
  const again = expect(guard.identify("secret")).rejects.toThrow();
  await clock.advance(10_000);
  await again;
});

it("does not wait for a daemon that hangs, where it knows the answer", async () => {
  await guard.identify("secret");
  await guard.mayPublish(who, "shared/t");
  await clock.advance(5_000);
  hangs = true;
  const answers = Promise.all([guard.identify("secret"), guard.mayPublish(who, "shared/t")]);
  await clock.advance(3_000);
  expect(await answers).toEqual([who, true]);
  expect(await guard.mayPublish(who, "shared/t")).toBe(true);
});

it("a run that ended while the daemon was asked about it is over", async () => {
  const answer = guard.identify("secret");
  guard.forgetRun("run-1");
  expect(await answer).toBeUndefined();
  expect(await guard.mayPublish(who, "shared/t")).toBe(false);
});
