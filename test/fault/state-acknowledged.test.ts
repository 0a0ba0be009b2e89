import { afterEach, expect, test } from "vitest";
import { fixtureAgent } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { operatorOf } from "../helpers/operator.js";
import { environOf } from "../helpers/processes.js";
import { expectTwins } from "../helpers/twins.js";
import { waitFor } from "../helpers/wait-for.js";

const LANES = 8;
const ENOUGH = 400;

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

test("kill -9 amid writes: every value that was acknowledged is there, with its version", async () => {
  const it = await startDaemon();
  daemon = it;
  const operator = operatorOf(it.home);
  const acknowledged = new Map<string, { value: number; version: number }>();
  let count = 0;
  // Each lane writes ever higher numbers to keys of its own, two at a time, until nobody answers any more.
  const lane = async (_: unknown, index: number) => {
    for (let value = 0; ; value++) {
      const keys = [`${index}/${value % 20}`, `${index}/twin/${value % 20}`];
      const writes = keys.map((key) => ({ op: "put", key, value }));
      const { status, json } = await operator.post("/state/shared", { writes });
      expect(status).toBe(200);
      for (const { key, version } of json["items"] as { key: string; version: number }[])
        acknowledged.set(key, { value, version });
      count++;
      if (count === ENOUGH) process.kill(it.pid() as number, "SIGKILL");
    }
  };
  const ends = await Promise.allSettled(Array.from({ length: LANES }, lane));
  for (const end of ends)
    expect(end).toMatchObject({ reason: { code: expect.stringMatching(/ECONN|EPIPE/) } });
  await waitFor(() => it.pid() === undefined, { what: "the lock to be free" });

  await it.start();
  const { json } = await operatorOf(it.home).get("/state/shared?limit=1000");
  const items = json["items"] as { key: string; value: number; version: number }[];
  const found = new Map(items.map(({ key, value, version }) => [key, { value, version }]));
  expectTwins(acknowledged, found);
});

test("an agent that requires the state store starts without anything being set up, and finds it", async () => {
  const Needs = { template_id: "Needs", ...fixtureAgent("sleeper.sh"), requires: ["state"] };
  daemon = await startDaemon({ templates: [Needs] });
  const { pid, state } = await daemon.client.agents.create({ agent_id: "a", template_id: "Needs" });
  expect(state).toBe("running");
  expect(environOf(pid as number)["OPENSTARRY_STATE_URL"]).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/.*state$/);
});
