import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test } from "vitest";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { missingProgram } from "../helpers/programs.js";

const pathTo = (file: string) => fileURLToPath(new URL(file, import.meta.url));
const once = { requires: ["bus", "state"], restart: { policy: "never" } };
const PROGRAMS = [
  {
    template_id: "TypeScript",
    command: process.execPath,
    args: ["--import", "jiti/register", pathTo("../fixtures/agents/infrastructure.ts")],
    cwd: pathTo("../.."),
    ...once,
  },
  {
    template_id: "Python",
    command: "python3",
    args: [pathTo("../fixtures/agents/infrastructure.py"), pathTo("../../examples/clients")],
    env: { PYTHONDONTWRITEBYTECODE: "1" },
    ...once,
  },
];

/** The results of each program, the same for every bus and store. */
const EXPECTED = {
  value: { second: true },
  versions_rise: true,
  stale_write: "state_conflict",
  there_already: "state_conflict",
  batch_refused: "state_conflict",
  batch: ["batch/3"],
  order: ["k", "k/Z", "k/a", "k/a/b", "k/é", "k/😀"],
  pages: 250,
  big: true,
  too_big: "input_invalid",
  changes: ["put", "delete"],
  gone: true,
  deleted: [true, false],
  others_values: "forbidden",
  daemons_values: "forbidden",
  in_order: true,
  rest: [{ index: 47 }, { index: 48 }, { index: 49 }],
  given_back: [
    [1, 1],
    [1, 2],
    [1, 3],
  ],
  group_goes_on: { index: 10 },
  another_group: { index: 0 },
  reply: { echo: { text: "ä" } },
  not_kept: true,
  big_message: true,
  presence: true,
  daemons_topics: "forbidden",
  others_topics: "forbidden",
  all_topics: "forbidden",
  no_topic: "input_invalid",
};

/** The config of each bus, and the program that must be installed for it. */
const BUSES = {
  mqtt: { plugins: ["bus-mqtt"], missing: () => undefined },
  nats: {
    plugins: [["bus-nats", { managed: true }]],
    missing: () => missingProgram("nats-server", "nats-server"),
  },
  redis: {
    plugins: [["bus-redis", { managed: true }]],
    missing: () => missingProgram("redis-server", "redis-server"),
  },
};
const STORES = {
  sqlite: { plugins: [], missing: () => undefined },
  redis: {
    plugins: [["state-redis", { managed: true }]],
    missing: () => missingProgram("redis-server", "redis-server"),
  },
  postgres: { plugins: [["state-postgres", { managed: true }]], missing: () => undefined },
};

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

describe("the same agents on every bus and state store", () => {
  const noPython = missingProgram("python3", "python3");
  for (const [bus, ofBus] of Object.entries(BUSES)) {
    for (const [store, ofStore] of Object.entries(STORES)) {
      const missing = ofBus.missing() ?? ofStore.missing();
      test.skipIf(missing)(
        `agents in two languages get the same results with bus ${bus} and state store ${store}`,
        async () => {
          const plugins = [...ofBus.plugins, ...ofStore.plugins];
          const it = await startDaemon({ templates: PROGRAMS, config: { plugins } });
          daemon = it;
          const over = new AbortController();
          const echoing = echo(it, over.signal);
          const programs = PROGRAMS.filter(({ command }) => command !== "python3" || !noPython);
          for (const { template_id } of programs) {
            const agent_id = template_id.toLowerCase();
            await it.client.agents.create({ agent_id, template_id });
            const { last_exit } = await it.client.agents.wait(agent_id, { for: "ended", timeoutMs: 60_000 });
            const { stdout, stderr } = await it.cli(["logs", agent_id]);
            expect(last_exit, `${template_id}: ${stdout}${stderr}`).toMatchObject({ code: 0 });
            const { result } = await it.client.agents.result(agent_id);
            expect(JSON.parse(result), template_id).toEqual({ ...EXPECTED, from: `agent:${agent_id}` });
          }
          over.abort();
          await echoing;
        },
        120_000,
      );
    }
  }
});

/** Answers requests on shared/echo as the operator. */
async function echo({ client }: TestDaemon, signal: AbortSignal): Promise<void> {
  for await (const { reply_to, payload } of client.bus.subscribe("shared/echo", { after: "0", signal })) {
    if (reply_to !== undefined) await client.bus.publish(reply_to, { echo: payload });
  }
}
