import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { systemClock } from "../../../../core/index.js";
import { createMemoryBus } from "../../../../plugins/bus-memory/memory-bus.js";
import { createDaemonServer } from "../../../../plugins/bus-mqtt/broker/daemon-server.js";
import { sendLiveRuns } from "../../../../plugins/bus-mqtt/ipc/live-runs.js";
import { createPeer } from "../../../../plugins/bus-mqtt/ipc/peer.js";
import { waitFor } from "../../../helpers/wait-for.js";

it("a daemon can send the ids of 10,000 live runs", async () => {
  const folder = mkdtempSync(join(tmpdir(), "openstarry-bus-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const received: ReadonlySet<string>[] = [];
  const limits = { maxMessages: 10, maxBytes: 1_000, maxGroups: 10 };
  const server = createDaemonServer({
    bus: createMemoryBus(systemClock, limits).bus,
    status: () => ({}),
    onDrop: async () => {},
    onLiveRuns: (live) => received.push(live),
    onRunOver: () => {},
  });
  await server.listen(join(folder, "s"));
  onTestFinished(() => server.close());
  const peer = createPeer({
    socket: connect(join(folder, "s")),
    onRequest: async () => ({}),
    onNotification: () => {},
    onEnd: () => {},
  });
  onTestFinished(() => peer.end());
  sendLiveRuns(
    peer,
    Array.from({ length: 10_000 }, () => crypto.randomUUID()),
  );
  await waitFor(() => received.length > 0, { what: "the runs" });
  expect(received[0]?.size).toBe(10_000);
});
