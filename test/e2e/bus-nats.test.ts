import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { connect as connectNats } from "@nats-io/transport-node";
import { afterEach, describe, expect, it } from "vitest";
import { fixtureAgent } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { missingNatsServer, type NatsServer, startNatsServer } from "../helpers/nats-server.js";
import { waitFor } from "../helpers/wait-for.js";

const missing = missingNatsServer();
const ID = "svc:nats";
const needsBus = { template_id: "Needs", ...fixtureAgent("sleeper.sh"), requires: ["bus"] };

let daemon: TestDaemon | undefined;
let server: NatsServer | undefined;
afterEach(async () => {
  await daemon?.stop();
  await server?.stop();
  daemon = undefined;
  server = undefined;
});

async function start(options: Record<string, unknown>): Promise<TestDaemon> {
  daemon = await startDaemon({ config: { plugins: [["bus-nats", options]] }, templates: [needsBus] });
  return daemon;
}

const ready = (it: TestDaemon, id = ID) => it.client.agents.wait(id, { for: "ready", timeoutMs: 20_000 });

/** Publishes when the bus is there. */
const publish = (it: TestDaemon, topic: string, payload: unknown) =>
  waitFor(() => it.client.bus.publish(topic, payload), { what: "the bus", timeoutMs: 20_000 });

async function first(it: TestDaemon, count: number, topic: string, after = "0") {
  const signal = AbortSignal.timeout(20_000);
  const seen: { payload: unknown; position?: string }[] = [];
  for await (const { payload, position } of it.client.bus.subscribe(topic, { after, signal })) {
    seen.push({ payload, ...(position === undefined ? {} : { position }) });
    if (seen.length === count) break;
  }
  return seen;
}

describe.skipIf(missing !== undefined)("a NATS server of the daemon's own", () => {
  it("is started at the first need, and is adopted with its messages after a kill -9 of the daemon", async () => {
    const it = await start({ managed: true });
    await expect(it.client.agents.get(ID)).rejects.toMatchObject({ code: "agent_not_found" });
    await it.client.agents.create({ agent_id: "a", template_id: "Needs" });
    expect(await ready(it, "a")).toMatchObject({ state: "running" });
    const { pid } = await ready(it);
    await publish(it, "shared/t", 1);
    process.kill(it.pid() as number, "SIGKILL");
    await waitFor(() => it.pid() === undefined, { what: "the lock to be free" });
    await it.start();
    expect(await ready(it)).toMatchObject({ pid, restarts: 0 });
    await publish(it, "shared/t", 2);
    expect((await first(it, 2, "shared/t")).map(({ payload }) => payload)).toEqual([1, 2]);
  });
});
