import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { systemClock } from "../../../../core/index.js";
import { createMemoryBus } from "../../../../plugins/bus-memory/memory-bus.js";
import { createDaemonServer } from "../../../../plugins/bus-mqtt/broker/daemon-server.js";
import { tellRuns } from "../../../../plugins/bus-mqtt/daemon/run-list.js";
import { createPeer } from "../../../../plugins/bus-mqtt/ipc/peer.js";
import { waitFor } from "../../../helpers/wait-for.js";

it("a daemon tells it of as many runs as there may be", async () => {
  const folder = mkdtempSync(join(tmpdir(), "openstarry-bus-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const told: ReadonlySet<string>[] = [];
  const limits = { maxMessages: 10, maxBytes: 1_000, maxGroups: 10 };
  const server = createDaemonServer({
    bus: createMemoryBus(systemClock, limits).bus,
    status: () => ({}),
    onDrop: async () => {},
    onRuns: (live) => told.push(live),
    onRunOver: () => {},
  });
  await server.listen(join(folder, "s"));
  onTestFinished(() => server.close());
  const peer = createPeer({
    socket: connect(join(folder, "s")),
    onRequest: async () => ({}),
    onNote: () => {},
    onEnd: () => {},
  });
  onTestFinished(() => peer.end());
  tellRuns(
    peer,
    Array.from({ length: 10_000 }, () => crypto.randomUUID()),
  );
  await waitFor(() => told.length > 0, { what: "the runs" });
  expect(told[0]?.size).toBe(10_000);
});
