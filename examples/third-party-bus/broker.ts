// The broker: `node broker.js FOLDER`, run by the daemon as the service `svc:line`. It needs nothing but Node.
import { rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { createEngine, type Reader } from "./engine.js";
import { isKeyOf, type Peer, readSecret } from "./keys.js";
import { isTopic, mayRead, mayWrite } from "./topics.js";
import { type Frame, onFrames, sendFrame } from "./wire.js";

const [, , folder = "."] = process.argv;
const MAX_PAYLOAD_BYTES = 2 ** 20;
/** The largest payload in base64, and what stands around it. */
const MAX_FRAME_BYTES = 1.5 * 2 ** 20;
/** Of somebody who has not said who it is. */
const MAX_HELLO_BYTES = 1_024;
const HELLO_MS = 5_000;
const MAX_READERS = 1_000;

const secret = readSecret(join(folder, "secret"));
const engine = createEngine();
/** Which run of an agent is alive, as the daemon said last. What an agent holds of another run opens nothing. */
let runs = new Map<string, string>();
const connections = new Set<{ socket: Socket; peer?: Peer }>();

class Refusal extends Error {
  constructor(
    readonly code: "input_invalid" | "forbidden",
    detail: string,
  ) {
    super(detail);
  }
}

function isWelcome(peer: Peer): boolean {
  return peer.kind === "daemon" || runs.get(peer.agent) === peer.run;
}

function text(frame: Frame, name: string, maxLength = 256): string {
  const value = frame[name];
  if (typeof value === "string" && value.length <= maxLength) return value;
  throw new Refusal("input_invalid", `${name}: expected text of at most ${maxLength} characters`);
}

function count(frame: Frame, name: string, min: number): number {
  const value = frame[name];
  if (Number.isInteger(value) && Number(value) >= min && Number(value) < 2 ** 31) return Number(value);
  throw new Refusal("input_invalid", `${name}: expected a whole number from ${min} on`);
}

function topicOf(frame: Frame, peer: Peer): string {
  const { topic } = frame;
  if (!isTopic(topic, false)) throw new Refusal("input_invalid", "topic: expected levels between slashes");
  if (peer.kind === "daemon" || mayWrite(peer.agent, topic)) return topic;
  throw new Refusal("forbidden", `agent ${peer.agent} may not publish to ${topic}`);
}

function filterOf(frame: Frame, peer: Peer): string {
  const { filter } = frame;
  if (!isTopic(filter, true)) throw new Refusal("input_invalid", "filter: expected levels between slashes");
  if (peer.kind === "daemon" || mayRead(peer.agent, filter)) return filter;
  throw new Refusal("forbidden", `agent ${peer.agent} may not read ${filter}`);
}

function startOf(frame: Frame): string | undefined {
  if (frame["after"] === undefined) return undefined;
  const after = text(frame, "after");
  if (/^\d{1,16}$/.test(after)) return after;
  throw new Refusal("input_invalid", "after: expected the position of a message");
}

function publish(frame: Frame, peer: Peer): Frame {
  const payload = text(frame, "payload", MAX_FRAME_BYTES);
  if (Buffer.byteLength(payload, "base64") > MAX_PAYLOAD_BYTES) {
    throw new Refusal("input_invalid", `payload: expected at most ${MAX_PAYLOAD_BYTES} bytes`);
  }
  const isOptional = (name: string) => frame[name] !== undefined;
  // An agent is who its key says; the daemon says for whom it speaks.
  const from = peer.kind === "agent" ? `agent:${peer.agent}` : isOptional("from") && text(frame, "from");
  const message = {
    topic: topicOf(frame, peer),
    payload,
    at: new Date().toISOString(),
    ...(from ? { from } : {}),
    ...(isOptional("reply_to") ? { reply_to: text(frame, "reply_to") } : {}),
  };
  const position = engine.publish(message, frame["keep"] !== false);
  return position === undefined ? {} : { position };
}

function openReader(frame: Frame, peer: Peer): Reader {
  const [filter, after] = [filterOf(frame, peer), startOf(frame)];
  if (frame["group"] === undefined) return engine.subscribe({ filter, after });
  const [ackWaitMs, maxInFlight] = [count(frame, "ack_wait_ms", 1), count(frame, "max_in_flight", 1)];
  return engine.consume({ filter, after, group: text(frame, "group"), ackWaitMs, maxInFlight });
}

/** What the daemon says of who lives. Those whose run is over are cut off. */
function setRuns(frame: Frame): void {
  runs = new Map(Object.entries(Object(frame["runs"])).map(([agent, run]) => [agent, String(run)]));
  for (const { socket, peer } of connections) if (peer && !isWelcome(peer)) socket.destroy();
}

/** What the one at the other end may ask for, once it is known who that is. */
function serve(peer: Peer, readers: Map<unknown, Reader>) {
  const groupOf = (frame: Frame) => ({ filter: filterOf(frame, peer), group: text(frame, "group") });
  const daemonOnly = (act: (frame: Frame) => void) => (frame: Frame) => {
    if (peer.kind !== "daemon") throw new Refusal("forbidden", "only the daemon may do that");
    act(frame);
  };
  const actions: Record<string, (frame: Frame) => Frame | Promise<Frame> | void> = {
    publish: (frame) => publish(frame, peer),
    open(frame) {
      if (readers.size >= MAX_READERS) throw new Refusal("forbidden", `at most ${MAX_READERS} readers`);
      if (readers.has(frame["reader"]))
        throw new Refusal("input_invalid", "reader: there is one of this name");
      readers.set(frame["reader"], openReader(frame, peer));
    },
    next: async (frame) => {
      const reader = readers.get(frame["reader"]);
      if (!reader) throw new Refusal("input_invalid", "reader: there is none of this name");
      const item = await reader.next();
      return item ? { item } : {};
    },
    close(frame) {
      readers.get(frame["reader"])?.end();
      readers.delete(frame["reader"]);
    },
    ack: (frame) => engine.ack(groupOf(frame), text(frame, "token")),
    nack: (frame) => engine.nack(groupOf(frame), text(frame, "token"), count(frame, "delay_ms", 0)),
    remove_group: daemonOnly((frame) => engine.removeGroup(groupOf(frame))),
    drop: daemonOnly((frame) => engine.drop(filterOf(frame, peer))),
    runs: daemonOnly(setRuns),
  };
  return async (frame: Frame): Promise<Frame> => {
    const { op } = frame;
    const action = typeof op === "string" && Object.hasOwn(actions, op) ? actions[op] : undefined;
    try {
      if (!action) throw new Refusal("input_invalid", "op: there is none of this name");
      return (await action(frame)) ?? {};
    } catch (error) {
      if (error instanceof Refusal) return { error: error.code, detail: error.message };
      throw error;
    }
  };
}

/** The first frame says who it is, and proves it. */
function greet(frame: Frame): Peer | undefined {
  const { op, agent, run, key } = frame;
  const peer: Peer =
    typeof agent === "string" && typeof run === "string" ? { kind: "agent", agent, run } : { kind: "daemon" };
  const isKnown = op === "hello" && typeof key === "string" && isKeyOf(secret, peer, key);
  return isKnown && isWelcome(peer) ? peer : undefined;
}

function accept(socket: Socket): void {
  const connection: { socket: Socket; peer?: Peer } = { socket };
  const readers = new Map<unknown, Reader>();
  connections.add(connection);
  const impatience = setTimeout(() => socket.destroy(), HELLO_MS);
  let answer: ((frame: Frame) => Promise<Frame>) | undefined;
  const maxBytes = () => (answer ? MAX_FRAME_BYTES : MAX_HELLO_BYTES);
  onFrames(socket, maxBytes, (frame) => {
    if (answer) {
      void answer(frame).then((said) => sendFrame(socket, { ...said, id: frame["id"] }));
      return;
    }
    const peer = greet(frame);
    if (!peer) return void socket.destroy();
    clearTimeout(impatience);
    connection.peer = peer;
    answer = serve(peer, readers);
    sendFrame(socket, { id: frame["id"] });
  });
  socket.on("error", () => {});
  socket.on("close", () => {
    clearTimeout(impatience);
    connections.delete(connection);
    for (const reader of readers.values()) reader.end();
  });
}

// Whatever the umask was: the socket is for the daemon's user alone.
process.umask(0o177);
const path = join(folder, "bus.sock");
// Of a broker that was killed. The daemon runs one at a time.
rmSync(path, { force: true });
createServer(accept).listen(path, () => console.log("the bus is up"));
process.on("SIGTERM", () => process.exit(0));
