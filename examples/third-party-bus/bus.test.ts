import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { readOrCreateSecret } from "openstarry-daemon/kit";
import { testMessageBus } from "openstarry-daemon/testing";
import { busOver, type Connection, connectBus, connectByUrl, type LineBus } from "./client.js";
import { keyOf } from "./keys.js";

/** A broker of its own, as the daemon would run it. */
function makeBroker() {
  const folder = mkdtempSync(join(tmpdir(), "bus-line-"));
  const secret = readOrCreateSecret(join(folder, "secret"));
  const path = join(folder, "bus.sock");
  let broker: ChildProcess | undefined;
  const kill = () => broker?.kill("SIGKILL");
  return {
    path,
    daemonHello: { key: keyOf(secret, { kind: "daemon" }) },
    urlOf(agent: string, run: string, key = keyOf(secret, { kind: "agent", agent, run })) {
      return `unix:${encodeURI(path)}?${new URLSearchParams({ agent, run, key })}`;
    },
    async start() {
      const file = fileURLToPath(new URL("./broker.js", import.meta.url));
      broker = spawn(process.execPath, [file, folder], { stdio: ["ignore", "pipe", "inherit"] });
      // Whatever becomes of the test: it does not stay behind.
      process.once("exit", kill);
      if (broker.stdout) await once(broker.stdout, "data");
    },
    async stop() {
      const ended = broker && once(broker, "exit");
      process.off("exit", kill);
      if (kill()) await ended;
      broker = undefined;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

testMessageBus({
  test,
  capabilities: { durable: false },
  factory() {
    const broker = makeBroker();
    let connection: Connection | undefined;
    const open = (): Connection => {
      if (connection) return connection;
      throw new Error("it is not started");
    };
    return {
      bus: {
        name: "line",
        capabilities: { durable: false },
        health: () => (connection?.isOpen() ? undefined : "it is not connected"),
        ...busOver(open),
      },
      async start() {
        await broker.start();
        connection = await connectBus(broker.path, broker.daemonHello);
      },
      async stop() {
        connection?.close();
        await connection?.closed;
        await broker.stop();
      },
    };
  },
});

type Broker = ReturnType<typeof makeBroker>;

type Daemon = LineBus & { tellRuns(runs: Record<string, string>): Promise<unknown> };

/** With agents "a" and "b" alive, as the daemon has told it. */
function withAgents(name: string, run: (broker: Broker, daemon: Daemon) => Promise<void>): void {
  test(name, async () => {
    const broker = makeBroker();
    await broker.start();
    const connection = await connectBus(broker.path, broker.daemonHello);
    const tellRuns = (runs: Record<string, string>) => connection.call({ op: "runs", runs });
    try {
      await tellRuns({ a: "run-1", b: "run-2" });
      await run(broker, { ...busOver(() => connection), tellRuns });
    } finally {
      connection.close();
      await broker.stop();
    }
  });
}

const send = (client: LineBus, topic: string, text = "hi") =>
  client.publish({ topic, payload: Buffer.from(text) });

async function first(client: LineBus, filter: string) {
  const { signal } = new AbortController();
  for await (const message of client.subscribe({ filter, after: "0", signal })) return message;
  return undefined;
}

withAgents("agents talk by their own keys, and the broker says who it was", async (broker) => {
  const [a, b] = [
    await connectByUrl(broker.urlOf("a", "run-1")),
    await connectByUrl(broker.urlOf("b", "run-2")),
  ];
  const forged = { topic: "shared/talk", payload: Buffer.from("hello"), from: "agent:b" };
  await a.publish(forged);
  const message = await first(b, "shared/#");
  assert.deepEqual([message?.from, String(message && Buffer.from(message.payload))], ["agent:a", "hello"]);
});

withAgents("an agent reads and writes no more than it may", async (broker, daemon) => {
  const a = await connectByUrl(broker.urlOf("a", "run-1"));
  await send(daemon, "agents/b/inbox");
  for (const filter of ["#", "+/b/inbox", "agents/b/#", "agents/+/inbox", "openstarry/#"]) {
    await assert.rejects(first(a, filter), { code: "forbidden" }, filter);
  }
  for (const topic of ["agents/b/inbox", "openstarry/events/x", "other"]) {
    await assert.rejects(send(a, topic), { code: "forbidden" }, topic);
  }
  for (const topic of ["shared//x", "shared/#", "", "x".repeat(300), `shared${"/x".repeat(16)}`]) {
    await assert.rejects(send(a, topic), { code: "input_invalid" }, topic);
  }
  await assert.rejects(a.drop("shared/#"), { code: "forbidden" });
  await assert.rejects(a.removeGroup({ filter: "shared/#", group: "g" }), { code: "forbidden" });
  await send(a, "agents/a/notes");
  await send(a, "_reply/1");
});

withAgents(
  "a key is good for its own run alone, and for nothing when that is over",
  async (broker, daemon) => {
    const key = new URL(broker.urlOf("a", "run-1")).searchParams.get("key") ?? "";
    const away = { code: "bus_unavailable" };
    await assert.rejects(connectByUrl(broker.urlOf("b", "run-2", key)), away, "another agent's name");
    await assert.rejects(connectByUrl(broker.urlOf("a", "run-0")), away, "a run that is over");
    await assert.rejects(connectByUrl(broker.urlOf("c", "run-3")), away, "an agent that nobody knows");
    await assert.rejects(connectBus(broker.path, { key }), away, "as the daemon");
    await assert.rejects(connectBus(broker.path, {}), away, "without a key");

    const a = await connectByUrl(broker.urlOf("a", "run-1"));
    const cutOff = assert.rejects(first(a, "shared/#"), away);
    await daemon.tellRuns({ b: "run-2" });
    await cutOff;
    await assert.rejects(connectByUrl(broker.urlOf("a", "run-1")), away, "its run is over");
  },
);

withAgents(
  "who says nothing that can be understood is cut off, and the others are served",
  async (broker) => {
    const hello = JSON.stringify({ op: "hello", id: 1, ...broker.daemonHello });
    const lines = [
      "\n",
      "{\n",
      "[]\n",
      "null\n",
      `${"x".repeat(2_000)}`,
      '{"op":"publish"}\n',
      `${hello}\n{"op"\n`,
    ];
    for (const line of lines) {
      const socket = connect(broker.path).resume();
      socket.on("error", () => {});
      socket.write(line);
      await once(socket, "close");
    }
    const a = await connectByUrl(broker.urlOf("a", "run-1"));
    const helloOfB = Object.fromEntries(new URL(broker.urlOf("b", "run-2")).searchParams);
    const b = await connectBus(broker.path, helloOfB);
    for (const op of ["constructor", "__proto__", "", 7, undefined]) {
      await assert.rejects(b.call({ op }), { code: "input_invalid" });
    }
    await assert.rejects(b.call({ op: "runs", runs: { b: "run-2" } }), { code: "forbidden" });
    await send(a, "shared/x");
    assert.equal((await first(a, "shared/x"))?.topic, "shared/x");
  },
);

withAgents("the socket is the daemon's user's alone", async (broker) => {
  assert.equal(statSync(broker.path).mode & 0o777, 0o600);
});
