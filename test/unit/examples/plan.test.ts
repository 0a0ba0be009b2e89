import { expect, it } from "vitest";
import { systemClock } from "../../../core/index.js";
import { createMemoryBus } from "../../../plugins/bus-memory/memory-bus.js";

// By address: the examples are plain JavaScript without declarations.
const { followPlan } = await import(new URL("../../../examples/agents/plan.mjs", import.meta.url).href);

it("whatever others put into the master's inbox, its report is of its own analysts, and what it read is settled", async () => {
  const limits = { maxMessages: 10_000, maxBytes: 2 ** 20, maxGroups: 10 };
  const { bus } = createMemoryBus(systemClock, limits);
  const inbox = "agents/master/inbox";
  const tell = (from: string, payload: unknown) =>
    bus.publish({ topic: inbox, payload: Buffer.from(JSON.stringify(payload)), from });
  for (let count = 0; count < 150; count++) await tell("agent:sibling", count % 2 ? null : { over: "run-1" });
  for (const id of ["weather", "airports"]) await tell(`agent:${id}_analyst`, { key: "analysis", rows: 1 });

  async function* consume(filter: string, how: object) {
    const signal = new AbortController().signal;
    const options = { group: "", ackWaitMs: 60_000, maxInFlight: 1, ...how, filter, signal };
    for await (const { message, ...settle } of bus.consume(options)) {
      yield {
        ...settle,
        message: { ...message, payload: JSON.parse(Buffer.from(message.payload).toString()) },
      };
    }
  }
  const answers: Record<string, object> = {
    agent_templates: { templates: [{ template_id: "DataAnalystAgent_v1" }] },
    agent_wait: { done: true },
  };
  const removed: string[] = [];
  const tool = {
    async execute(name: string, args: { agent_id: string }) {
      if (name === "agent_stop") removed.push(args.agent_id);
      return { ok: true, data: answers[name] ?? {} };
    },
    client: {
      bus: { consume, publish: (_topic: string, payload: unknown) => tell("agent:master", payload) },
      state: {
        get: async (namespace: string) => ({ value: { file: namespace, rows: 1, findings: [] } }),
        put: async () => {},
      },
    },
  };
  const said: string[] = [];
  const self = { agentId: "master", runId: "run-1" };
  await followPlan({ tool: tool as never, self, say: (words: string) => said.push(words) });
  expect(removed).toEqual(["weather_analyst", "airports_analyst"]);
  expect(said.filter((words) => words.endsWith(": 1 rows"))).toHaveLength(2);
  await tell("agent:sibling", "behind");
  const { value } = await consume(inbox, { group: "master" }).next();
  expect(value?.message.payload).toBe("behind");
});
