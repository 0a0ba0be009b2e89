import { beforeEach, expect, it } from "vitest";
import { createCachingAuthorizer } from "../../../../plugins/bus-mqtt/broker/authorizer.js";
import { createFakeClock, type FakeClock } from "../../../helpers/fake-clock.js";

const who = { name: "agent:a", agentId: "a", runId: "run-1" };

let clock: FakeClock;
let asked: Record<string, unknown>[];
/** How the daemon answers. Absent: no daemon is connected. */
let daemon: ((question: Record<string, unknown>) => Record<string, unknown>) | undefined;
let hangs: boolean;
let listeners: Set<() => void>;
let authorizer: ReturnType<typeof createCachingAuthorizer>;
beforeEach(() => {
  clock = createFakeClock();
  asked = [];
  listeners = new Set();
  hangs = false;
  daemon = ({ do: what }) => (what === "identify" ? { identity: who } : { allowed: true });
  authorizer = createCachingAuthorizer({
    async ask(question) {
      asked.push(question as Record<string, unknown>);
      if (hangs) return new Promise(() => {});
      if (!daemon) throw new Error("no daemon is connected");
      return daemon(question as Record<string, unknown>);
    },
    onDaemon(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    clock,
  });
});

it("an answer is cached for five seconds, and then asked for again", async () => {
  for (let time = 0; time < 3; time++) expect(await authorizer.identify("secret")).toEqual(who);
  for (let time = 0; time < 3; time++) expect(await authorizer.mayPublish(who, "shared/t")).toBe(true);
  expect(asked).toHaveLength(2);
  await clock.advance(5_000);
  daemon = () => ({ allowed: false });
  expect(await authorizer.identify("secret")).toBeUndefined();
  expect(await authorizer.mayPublish(who, "shared/t")).toBe(false);
  expect(asked).toHaveLength(4);
});

it("without a daemon, cached answers stay valid and other questions wait for one", async () => {
  await authorizer.identify("secret");
  await authorizer.maySubscribe(who, "shared/#");
  daemon = undefined;
  await clock.advance(3_600_000);
  expect(await authorizer.identify("secret")).toEqual(who);
  expect(await authorizer.maySubscribe(who, "shared/#")).toBe(true);
  const unknown = authorizer.identify("another secret");
  await clock.advance(9_000);
  daemon = () => ({ identity: who });
  for (const listener of [...listeners]) listener();
  expect(await unknown).toEqual(who);
  expect(listeners.size).toBe(0);
  daemon = undefined;
  // An error and not a refusal, since no daemon has decided.
  const unanswered = expect(authorizer.mayPublish(who, "never/asked")).rejects.toThrow();
  await clock.advance(10_000);
  await unanswered;
  expect([listeners.size, clock.pending()]).toEqual([0, 0]);
});

it("decisions about an agent's topics are asked for again after `forgetOwner`", async () => {
  await authorizer.maySubscribe(who, "agents/b/#");
  await authorizer.mayPublish(who, "agents/b/inbox");
  await authorizer.mayPublish(who, "shared/t");
  authorizer.forgetOwner("b");
  daemon = () => ({ allowed: false });
  expect(await authorizer.maySubscribe(who, "agents/b/#")).toBe(false);
  expect(await authorizer.mayPublish(who, "agents/b/inbox")).toBe(false);
  expect(await authorizer.mayPublish(who, "shared/t")).toBe(true);
});

it("a run that is over is removed from the cache", async () => {
  await authorizer.identify("secret");
  expect([...authorizer.runs()]).toEqual(["run-1"]);
  authorizer.endRun("run-1");
  expect([...authorizer.runs()]).toEqual([]);
  daemon = undefined;
  const again = expect(authorizer.identify("secret")).rejects.toThrow();
  await clock.advance(10_000);
  await again;
});

it("a cached answer is used when the daemon does not answer in time", async () => {
  await authorizer.identify("secret");
  await authorizer.mayPublish(who, "shared/t");
  await clock.advance(5_000);
  hangs = true;
  const answers = Promise.all([authorizer.identify("secret"), authorizer.mayPublish(who, "shared/t")]);
  await clock.advance(3_000);
  expect(await answers).toEqual([who, true]);
  expect(await authorizer.mayPublish(who, "shared/t")).toBe(true);
});

it("a run that ends while the daemon is asked about it is refused", async () => {
  const answer = authorizer.identify("secret");
  authorizer.endRun("run-1");
  expect(await answer).toBeUndefined();
  expect(await authorizer.mayPublish(who, "shared/t")).toBe(false);
});
