import assert from "node:assert/strict";
import {
  createTemplateLanguage,
  type DaemonEvent,
  isOpenStarryError,
  type Journal,
  type JournalBatch,
  type NewEvent,
  type RunRecord,
  rfc3339,
  type StoredAgent,
} from "../../core/index.js";
import { memorySections } from "./memory-sections.js";

/** One implementation under test, over storage that no other test uses. */
export interface JournalSubject {
  journal: Journal;
  start?(): Promise<void> | void;
  stop?(): Promise<void> | void;
  /** A second subject over the same storage, as a later daemon would open it. Needed when `durable`. */
  reopen?(): Promise<JournalSubject> | JournalSubject;
}

export interface JournalSuite {
  /** Registers one test: `test` of vitest, node:test, mocha and others. */
  test: (name: string, run: () => Promise<void>) => void;
  /** Makes a subject, not started. `maxEvents`: how many events it is to keep, where it prunes. */
  factory: (options: { maxEvents: number }) => Promise<JournalSubject> | JournalSubject;
  /** What the implementation promises: it selects the tests. */
  capabilities: {
    durable: boolean;
    /** It forgets the oldest events beyond `maxEvents`. */
    prunes: boolean;
  };
}

/**
 * The contract of `core/contracts/journal.ts` as tests. They drive the implementation directly, so
 * memos must end by the real wall clock.
 */
export function testJournal(suite: JournalSuite): void {
  testAgents(suite);
  testEvents(suite);
  testRunsAndMemos(suite);
  testSecrets(suite);
  testLifecycle(suite);
  if (suite.capabilities.prunes) testPruning(suite);
  if (suite.capabilities.durable) testDurability(suite);
}

/** A record that a kernel could have written. */
export function storedAgentFixture(
  agentId: string,
  changes: Partial<StoredAgent["agent"]> = {},
): StoredAgent {
  const document = { template_id: "Sample_v1", command: "/bin/true", args: ["--for", "{{agent_id}}"] };
  const template = createTemplateLanguage(memorySections).parse({
    template_id: "Sample_v1",
    revision: "r1",
    document,
    origin: "contract suite",
  });
  return {
    agent: {
      agent_id: agentId,
      template_id: "Sample_v1",
      template_revision: "r1",
      state: "pending",
      desired: "running",
      health: "unknown",
      spawner: "process",
      restarts: 0,
      created_at: rfc3339(0),
      labels: {},
      ...changes,
    },
    template,
    params: { text: "a NUL \0, a lone surrogate \ud800, a quote ' and \u{1f680}" },
    origin: "request",
  };
}

const eventFixture = (agentId: string | undefined, step: number): NewEvent => ({
  type: "agent.state",
  at: rfc3339(step),
  ...(agentId === undefined ? {} : { agent_id: agentId }),
  // A journal keeps data as it is, whatever it is.
  data: { step } as never,
});

const stepOf = ({ data }: DaemonEvent): unknown => (data as unknown as { step: unknown }).step;

const runFixture = (agentId: string, number: number): RunRecord => ({
  run_id: `${agentId}-run-${number}`,
  agent_id: agentId,
  exit: {
    kind: "exited",
    code: number % 256,
    cause: "self",
    actor: `agent:${agentId}`,
    reason: "it ended by itself",
    success: true,
    ended_at: rfc3339(number),
  },
  result: `{"number": ${number}}\0`,
});

/** A batch that cannot be written as JSON. */
function unwritableBatch(agentId: string): JournalBatch {
  const loop: Record<string, unknown> = {};
  loop["loop"] = loop;
  return {
    put: [storedAgentFixture(agentId)],
    events: [{ type: "agent.state", at: rfc3339(0), data: loop as never }],
  };
}

async function assertUnavailable(promise: Promise<unknown>): Promise<void> {
  await assert.rejects(promise, (error) => isOpenStarryError(error) && error.code === "journal_unavailable");
}

/** Registers a test over a fresh, started journal, and stops it afterwards. */
function withJournal(
  suite: JournalSuite,
  name: string,
  run: (journal: Journal, subject: JournalSubject) => Promise<void>,
  maxEvents = 1_000,
): void {
  suite.test(name, async () => {
    const subject = await suite.factory({ maxEvents });
    await subject.start?.();
    try {
      await run(subject.journal, subject);
    } finally {
      await subject.stop?.();
    }
  });
}

const idsOf = async (journal: Journal) => (await journal.load()).agents.map(({ agent }) => agent.agent_id);

function testAgents(suite: JournalSuite): void {
  withJournal(suite, "it promises what it was said to promise", async (journal) => {
    assert.equal(journal.capabilities.durable, suite.capabilities.durable);
  });

  withJournal(suite, "a new journal is empty", async (journal) => {
    assert.deepEqual(await journal.load(), { agents: [], quarantined: [] });
    assert.equal(journal.lastEventId(), 0);
    assert.deepEqual(await journal.events({ after: 0, limit: 10 }), { events: [], gap: false });
    assert.deepEqual(await journal.runs("nobody", 10), []);
    assert.equal(await journal.memo("nothing"), undefined);
  });

  withJournal(suite, "a record comes back as it was put, in order of first put", async (journal) => {
    await journal.append({ put: [storedAgentFixture("b"), storedAgentFixture("a")] });
    const changed = storedAgentFixture("b", { state: "running", pid: 4711, labels: { team: "x" } });
    await journal.append({ put: [changed] });
    const { agents, quarantined } = await journal.load();
    assert.deepEqual(agents, [changed, storedAgentFixture("a")]);
    assert.deepEqual(quarantined, []);
  });

  withJournal(suite, "what becomes of a record after append does not matter", async (journal) => {
    const record = storedAgentFixture("a");
    const written = journal.append({ put: [record] });
    record.agent.state = "failed";
    await written;
    assert.equal((await journal.load()).agents[0]?.agent.state, "pending");
  });

  withJournal(suite, "forget removes the record and leaves others alone", async (journal) => {
    await journal.append({ put: [storedAgentFixture("a"), storedAgentFixture("b")] });
    await journal.append({ forget: ["a", "never-there"] });
    assert.deepEqual(await idsOf(journal), ["b"]);
    await journal.append({ put: [storedAgentFixture("a")] });
    assert.deepEqual(await idsOf(journal), ["b", "a"]);
  });

  withJournal(suite, "a batch that cannot be written leaves nothing of it", async (journal) => {
    await journal.append({ events: [eventFixture("a", 1)] });
    await assertUnavailable(journal.append(unwritableBatch("bad")));
    assert.deepEqual(await idsOf(journal), []);
    assert.equal((await journal.events({ after: 0, limit: 10 })).events.length, 1);
  });

  withJournal(suite, "a bad batch does not fail those appended in the same tick", async (journal) => {
    const outcomes = await Promise.allSettled([
      journal.append({ put: [storedAgentFixture("a")], events: [eventFixture("a", 1)] }),
      journal.append(unwritableBatch("bad")),
      journal.append({ put: [storedAgentFixture("c")], events: [eventFixture("c", 2)] }),
    ]);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      ["fulfilled", "rejected", "fulfilled"],
    );
    assert.deepEqual(await idsOf(journal), ["a", "c"]);
    const { events } = await journal.events({ after: 0, limit: 10 });
    assert.deepEqual(
      events.map(({ agent_id }) => agent_id),
      ["a", "c"],
    );
  });
}

function testEvents(suite: JournalSuite): void {
  withJournal(suite, "events are numbered in the order of append, over batches", async (journal) => {
    const batches = await Promise.all([
      journal.append({ events: [eventFixture("a", 1), eventFixture(undefined, 2)] }),
      journal.append({ put: [storedAgentFixture("x")] }),
      journal.append({ events: [eventFixture("b", 3)] }),
    ]);
    const numbered = batches.flat();
    assert.deepEqual(numbered.map(stepOf), [1, 2, 3]);
    for (const [index, event] of numbered.entries()) {
      assert.ok(event.id > (numbered[index - 1]?.id ?? 0), "ids rise");
    }
    assert.equal(journal.lastEventId(), numbered.at(-1)?.id);
    const read = await journal.events({ after: 0, limit: 10 });
    assert.deepEqual(read, { events: numbered, gap: false });
  });

  withJournal(suite, "events can be read in pages, from a point on, and of one agent", async (journal) => {
    const steps = Array.from({ length: 10 }, (_, step) => eventFixture(step % 2 ? "odd" : "even", step));
    const numbered = await journal.append({ events: steps });
    const third = numbered[2]?.id ?? 0;
    const page = await journal.events({ after: third, limit: 2 });
    assert.deepEqual(page.events, numbered.slice(3, 5));
    const odd = await journal.events({ after: third, limit: 100, agentId: "odd" });
    assert.deepEqual(odd.events.map(stepOf), [3, 5, 7, 9]);
    assert.deepEqual((await journal.events({ after: numbered.at(-1)?.id ?? 0, limit: 5 })).events, []);
  });

  withJournal(suite, "events of a forgotten agent stay", async (journal) => {
    await journal.append({ put: [storedAgentFixture("a")], events: [eventFixture("a", 1)] });
    await journal.append({ forget: ["a"], events: [eventFixture("a", 2)] });
    assert.equal((await journal.events({ after: 0, limit: 10, agentId: "a" })).events.length, 2);
  });
}

function testRunsAndMemos(suite: JournalSuite): void {
  withJournal(suite, "runs come newest first, at least 20 of each agent are kept", async (journal) => {
    for (let number = 1; number <= 60; number++) {
      await journal.append({ runs: [runFixture("a", number)] });
    }
    await journal.append({ runs: [runFixture("b", 1)] });
    const runs = await journal.runs("a", 20);
    assert.deepEqual(
      runs,
      Array.from({ length: 20 }, (_, index) => runFixture("a", 60 - index)),
    );
    assert.deepEqual(await journal.runs("a", 1), [runFixture("a", 60)]);
    assert.deepEqual(await journal.runs("b", 20), [runFixture("b", 1)]);
  });

  withJournal(suite, "the same run again replaces what was said of it", async (journal) => {
    const corrected: RunRecord = { ...runFixture("a", 1), result: "corrected" };
    await journal.append({ runs: [runFixture("a", 1)] });
    await journal.append({ runs: [corrected] });
    assert.deepEqual(await journal.runs("a", 20), [corrected]);
  });

  withJournal(suite, "forget takes the runs too, those of the same batch included", async (journal) => {
    await journal.append({ put: [storedAgentFixture("a")], runs: [runFixture("a", 1), runFixture("b", 1)] });
    await journal.append({ runs: [runFixture("a", 2)], forget: ["a"] });
    assert.deepEqual(await journal.runs("a", 20), []);
    assert.deepEqual(await journal.runs("b", 20), [runFixture("b", 1)]);
  });

  withJournal(suite, "a memo is there until it is over, and can be replaced", async (journal) => {
    const value = { answer: [1, "two", { three: 3 }] };
    const hourMs = 3_600_000;
    await journal.append({
      memos: [
        { key: "lasting", value: "first", expiresAtMs: Date.now() + hourMs },
        { key: "over", value, expiresAtMs: Date.now() - 1 },
        { key: "brief", value, expiresAtMs: Date.now() + 40 },
      ],
    });
    assert.equal(await journal.memo("over"), undefined);
    await journal.append({ memos: [{ key: "lasting", value, expiresAtMs: Date.now() + hourMs }] });
    assert.deepEqual(await journal.memo("lasting"), value);
    const deadline = performance.now() + 5_000;
    while ((await journal.memo("brief")) !== undefined) {
      assert.ok(performance.now() < deadline, "the brief memo is still there after 5 s");
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  });
}

function testSecrets(suite: JournalSuite): void {
  withJournal(
    suite,
    "values of one agent are its own, replaced whole, gone when forgotten",
    async (journal) => {
      assert.deepEqual(await journal.secrets.get("a"), {});
      await journal.append({ put: [storedAgentFixture("a"), storedAgentFixture("b")] });
      await journal.secrets.set("a", { KEY: 'one\n"two" \'\u{1f680}', OTHER: "" });
      assert.deepEqual(await journal.secrets.get("a"), { KEY: 'one\n"two" \'\u{1f680}', OTHER: "" });
      assert.deepEqual(await journal.secrets.get("b"), {});
      await journal.secrets.set("a", { KEY: "new" });
      assert.deepEqual(await journal.secrets.get("a"), { KEY: "new" });
      await journal.append({ forget: ["a"] });
      assert.deepEqual(await journal.secrets.get("a"), {});
    },
  );

  withJournal(suite, "values are in no record and no event", async (journal) => {
    const canary = "canary-5f1c9d";
    await journal.append({ put: [storedAgentFixture("a")], events: [eventFixture("a", 1)] });
    await journal.secrets.set("a", { TOKEN: canary });
    const everything = JSON.stringify([await journal.load(), await journal.events({ after: 0, limit: 100 })]);
    assert.ok(!everything.includes(canary));
  });
}

function testLifecycle(suite: JournalSuite): void {
  suite.test("start twice and stop twice do no harm", async () => {
    const subject = await suite.factory({ maxEvents: 1_000 });
    await subject.start?.();
    await subject.journal.append({ put: [storedAgentFixture("a")] });
    await subject.start?.();
    assert.deepEqual(await idsOf(subject.journal), ["a"]);
    await subject.stop?.();
    await subject.stop?.();
  });

  suite.test("a batch under way when the journal stops is written or refused, never left open", async () => {
    const subject = await suite.factory({ maxEvents: 1_000 });
    await subject.start?.();
    const append = subject.journal.append({ put: [storedAgentFixture("a")] }).then(
      () => "written",
      (error) => (isOpenStarryError(error) ? error.code : error),
    );
    await subject.stop?.();
    assert.match(String(await append), /^(written|journal_unavailable)$/);
  });

  suite.test("before start and after stop everything rejects with journal_unavailable", async () => {
    const subject = await suite.factory({ maxEvents: 1_000 });
    const { journal } = subject;
    const assertClosed = async () => {
      await assertUnavailable(journal.load());
      await assertUnavailable(journal.append({ put: [storedAgentFixture("a")] }));
      await assertUnavailable(journal.events({ after: 0, limit: 1 }));
      await assertUnavailable(journal.runs("a", 1));
      await assertUnavailable(journal.memo("a"));
      await assertUnavailable(journal.secrets.get("a"));
      await assertUnavailable(journal.secrets.set("a", {}));
    };
    if (subject.start) await assertClosed();
    await subject.start?.();
    await subject.stop?.();
    if (subject.stop) await assertClosed();
  });
}

function testPruning(suite: JournalSuite): void {
  withJournal(
    suite,
    "pruned events are told as a gap, the newest are kept, numbering goes on",
    async (journal) => {
      const maxEvents = 40;
      for (let step = 0; step < 400; step++) await journal.append({ events: [eventFixture("a", step)] });
      const { events, gap } = await journal.events({ after: 0, limit: 1_000 });
      assert.equal(gap, true);
      assert.ok(events.length >= maxEvents, `${events.length} of 400 events are left`);
      assert.ok(events.length <= 2 * maxEvents, `${events.length} of 400 events are left`);
      assert.equal(stepOf(events.at(-1) as DaemonEvent), 399);
      const oldest = events[0]?.id ?? 0;
      assert.equal((await journal.events({ after: oldest - 1, limit: 1 })).gap, false);
      assert.equal((await journal.events({ after: oldest - 2, limit: 1 })).gap, true);
      assert.equal((await journal.events({ after: journal.lastEventId(), limit: 1 })).gap, false);
    },
    40,
  );
}

function testDurability(suite: JournalSuite): void {
  suite.test("a later daemon finds everything again, and numbering goes on", async () => {
    const first = await suite.factory({ maxEvents: 1_000 });
    await first.start?.();
    const memo = { key: "k", value: { v: 1 }, expiresAtMs: Date.now() + 3_600_000 };
    const numbered = await first.journal.append({
      put: [storedAgentFixture("a"), storedAgentFixture("b")],
      runs: [runFixture("a", 1)],
      events: [eventFixture("a", 1), eventFixture("b", 2)],
      memos: [memo],
    });
    await first.journal.secrets.set("a", { KEY: "value" });
    await first.journal.append({ forget: ["b"] });
    await first.stop?.();

    assert.ok(first.reopen, "a durable journal's subject can be reopened");
    const second = await first.reopen();
    await second.start?.();
    try {
      const { journal } = second;
      assert.deepEqual((await journal.load()).agents, [storedAgentFixture("a")]);
      assert.deepEqual(await journal.runs("a", 5), [runFixture("a", 1)]);
      assert.deepEqual((await journal.events({ after: 0, limit: 10 })).events, numbered);
      assert.deepEqual(await journal.memo("k"), { v: 1 });
      assert.deepEqual(await journal.secrets.get("a"), { KEY: "value" });
      assert.equal(journal.lastEventId(), numbered[1]?.id);
      const [next] = await journal.append({ events: [eventFixture("a", 3)] });
      assert.ok((next?.id ?? 0) > (numbered[1]?.id ?? 0));
    } finally {
      await second.stop?.();
    }
  });
}
