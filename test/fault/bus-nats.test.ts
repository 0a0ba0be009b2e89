import { afterEach, describe, expect, it } from "vitest";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { missingNatsServer } from "../helpers/nats-server.js";
import { waitFor } from "../helpers/wait-for.js";

const missing = missingNatsServer();
const ID = "svc:nats";
const PUBLISHERS = 4;
const KILLS = 3;
/** How many messages are acknowledged between two kills. */
const STRETCH = 150;

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

const pause = () => new Promise((resolve) => setTimeout(resolve, 20));

/** Repeats an action until the signal aborts: iterators that the loss of the server ended are opened again. */
async function repeat(signal: AbortSignal, act: () => Promise<unknown>): Promise<void> {
  while (!signal.aborted) {
    await act().catch((error) => {
      if (!signal.aborted) expect(error).toMatchObject({ code: "bus_unavailable" });
    });
    await pause();
  }
}

describe.skipIf(missing !== undefined)("kill -9 of the managed nats-server under load", () => {
  it("no acknowledged message is lost, every reader sees the same order, and the daemon keeps running", async () => {
    const options = { managed: true, eager: true };
    const it = await startDaemon({ config: { plugins: [["bus-nats", options]] } });
    daemon = it;
    const { client } = it;
    const running = async () => {
      const { state, pid } = await client.agents.get(ID);
      return state === "running" ? pid : undefined;
    };
    const healthy = async () => {
      const { items } = await client.plugins();
      return items.find(({ name }) => name === "bus-nats")?.state === "started";
    };
    await waitFor(running, { what: "the server", timeoutMs: 20_000 });
    const daemonPid = it.pid();
    const over = new AbortController();
    const { signal } = over;

    const acknowledged = new Map<number, string>();
    let number = 0;
    let isWriting = true;
    const publisher = async () => {
      while (isWriting) {
        const mine = number++;
        // After an error the message may be kept or not; the next number is sent.
        const sent = await client.bus.publish("shared/t", mine).catch(() => pause());
        if (sent && typeof sent === "object" && "position" in sent)
          acknowledged.set(mine, String(sent.position));
      }
    };

    const read: { number: number; position: string }[] = [];
    const reading = repeat(signal, async () => {
      const after = read.at(-1)?.position ?? "0";
      for await (const { payload, position } of client.bus.subscribe("shared/#", { after, signal }))
        read.push({ number: payload as number, position: position as string });
    });
    const worked = new Set<number>();
    const working = repeat(signal, async () => {
      const how = { group: "workers", after: "0", ackWaitMs: 1_000, maxInFlight: 8, signal };
      for await (const { message, ack } of client.bus.consume("shared/t", how)) {
        worked.add(message.payload as number);
        await ack().catch(() => {});
      }
    });

    const publishers = Array.from({ length: PUBLISHERS }, publisher);
    for (let kill = 1; kill <= KILLS; kill++) {
      await waitFor(() => acknowledged.size >= kill * STRETCH, { what: "messages", timeoutMs: 30_000 });
      const pid = await waitFor(running, { what: "the server", timeoutMs: 20_000 });
      process.kill(pid, "SIGKILL");
      const isBack = async () => (await running()) !== pid && (await healthy());
      await waitFor(isBack, { what: "another server, and the plugin with it", timeoutMs: 30_000 });
    }
    await waitFor(() => acknowledged.size >= (KILLS + 1) * STRETCH, {
      what: "the last ones",
      timeoutMs: 30_000,
    });
    isWriting = false;
    await Promise.all(publishers);

    const all = [...acknowledged.keys()];
    const readNumbers = () => new Set(read.map((it) => it.number));
    await waitFor(() => all.every((it) => readNumbers().has(it)), {
      what: "everything to be read",
      timeoutMs: 30_000,
      diagnose: () => all.filter((it) => !readNumbers().has(it)),
    });
    await waitFor(() => all.every((it) => worked.has(it)), {
      what: "everything to be worked on",
      timeoutMs: 30_000,
      diagnose: () => all.filter((it) => !worked.has(it)),
    });
    over.abort();
    await Promise.all([reading, working]);

    const sequences = read.map(({ position }) => Number(position.split("-")[1]));
    expect(sequences).toEqual([...sequences].sort((a, b) => a - b));
    expect(new Set(sequences).size).toBe(sequences.length);
    for (const { number, position } of read) {
      if (acknowledged.has(number)) expect(acknowledged.get(number)).toBe(position);
    }
    expect(it.pid()).toBe(daemonPid);
    const { stdout } = await it.cli(["events", "-n", "1000", "--json"]);
    const degraded = stdout.split("\n").filter((line) => /plugin\.degraded.*bus-nats/.test(line));
    expect(degraded.length).toBeGreaterThanOrEqual(KILLS);
    const { restarts } = await client.agents.get(ID);
    expect(restarts).toBe(KILLS);
  }, 120_000);
});
