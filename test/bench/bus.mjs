// Measures the embedded bus over MQTT: agents that each publish to a topic of their own and read it, with QoS 0 and 1,
// beside bare aedes with its memory persistence (which keeps nothing), all in one run with one kind of client.
//   npm run bench:bus -- [--seconds 4] [--agents 1,50] [--in-flight 8]
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Aedes } from "aedes";
import { connectAsync } from "mqtt";
import { client } from "./client.mjs";

const { values: options } = parseArgs({
  options: {
    seconds: { type: "string", default: "4" },
    agents: { type: "string", default: "1,50" },
    "in-flight": { type: "string", default: "8" },
    bare: { type: "boolean", default: false },
  },
});
const seconds = Number(options.seconds);
const inFlight = Number(options["in-flight"]);
const here = dirname(fileURLToPath(import.meta.url));
const command = join(here, "../../dist/bin/openstarry-daemon.js");
const scratch = options.bare ? "" : mkdtempSync(join(tmpdir(), "openstarry-bench-"));

/** Of a process, in MiB. */
function rssOf(pid) {
  const [, kib] = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"));
  return Math.round(Number(kib) / 1024);
}

/** Messages on their way from each agent to itself, for a while: how many came, and how late. */
async function measure(what, { port, password }, { agents, qos }) {
  const late = [];
  let isOver = false;
  const clients = await Promise.all(
    Array.from({ length: agents }, () =>
      connectAsync({ host: "127.0.0.1", port, protocolVersion: 4, username: "bench", password }),
    ),
  );
  await Promise.all(
    clients.map(async (it, index) => {
      it.stream.setNoDelay(true);
      const topic = `shared/bench/${index}`;
      const send = () => {
        const payload = Buffer.alloc(128);
        payload.writeDoubleLE(performance.now());
        it.publish(topic, payload, { qos });
      };
      await it.subscribeAsync(topic, { qos });
      it.on("message", (_topic, payload) => {
        late.push(performance.now() - payload.readDoubleLE());
        if (!isOver) send();
      });
      for (let count = 0; count < inFlight; count++) send();
    }),
  );
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  isOver = true;
  const count = late.length;
  await Promise.all(clients.map((it) => it.endAsync(true)));
  late.sort((a, b) => a - b);
  const at = (part) => `${(late[Math.floor(late.length * part)] ?? Number.NaN).toFixed(1)} ms`.padStart(9);
  const rate = String(Math.round(count / seconds)).padStart(8);
  const words = `${what}, QoS ${qos}, ${agents} agent${agents === 1 ? "" : "s"}`;
  console.log(`${words.padEnd(34)}${rate} / s   p50${at(0.5)}   p99${at(0.99)}`);
}

async function measureAll(what, target) {
  for (const agents of options.agents.split(",").map(Number)) {
    for (const qos of [0, 1]) await measure(what, target, { agents, qos });
  }
}

async function withBareAedes() {
  const words = [fileURLToPath(import.meta.url), "--bare"];
  const aedes = spawn(process.execPath, words, { stdio: ["ignore", "pipe", "inherit"] });
  const gone = new Promise((resolve) => aedes.once("exit", resolve));
  try {
    const port = Number(await new Promise((resolve) => aedes.stdout.once("data", resolve)));
    await measureAll("bare aedes", { port });
    console.log(`bare aedes: ${rssOf(aedes.pid)} MiB\n`);
  } finally {
    aedes.kill("SIGTERM");
    await gone;
  }
}

/** Asks until there is an answer that is not `undefined`. */
async function until(ask) {
  for (let tries = 0; ; tries++) {
    try {
      const answer = await ask();
      if (answer !== undefined) return answer;
    } catch (error) {
      if (tries > 200) throw error;
    }
    if (tries > 200) throw new Error("waited in vain");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function withDaemon() {
  const home = join(scratch, "home");
  mkdirSync(home, { mode: 0o700 });
  const config = join(scratch, "config.json");
  const plugins = [
    ["http-api", { port: 0 }],
    ["bus-mqtt", { eager: true }],
  ];
  writeFileSync(config, JSON.stringify({ plugins }));
  const log = openSync(join(scratch, "daemon.log"), "w");
  const words = ["start", "--foreground", "--home", home, "--config", config];
  const daemon = spawn(process.execPath, [command, ...words], { stdio: ["ignore", log, log] });
  const gone = new Promise((resolve) => daemon.once("exit", resolve));
  try {
    const info = await until(() => JSON.parse(readFileSync(join(home, "daemon.json"), "utf8")));
    const password = readFileSync(join(home, "token"), "utf8").trim();
    const call = client(info.port, password);
    const broker = await until(async () => {
      const { body } = await call("GET", "/agents/svc:bus");
      return body.state === "running" ? body : undefined;
    });
    const port = await until(() => JSON.parse(readFileSync(join(home, "bus/port.json"), "utf8")).port);
    console.log(`at the start: daemon ${rssOf(daemon.pid)} MiB, broker ${rssOf(broker.pid)} MiB`);
    await measureAll("bus-mqtt", { port, password });
    console.log(`at the end: daemon ${rssOf(daemon.pid)} MiB, broker ${rssOf(broker.pid)} MiB`);
    call.end();
  } finally {
    daemon.kill("SIGTERM");
    await gone;
  }
}

/** The process of `withBareAedes`. Prints its port. */
async function beBare() {
  const aedes = await Aedes.createBroker();
  const server = createServer({ noDelay: true }, aedes.handle);
  server.listen(0, "127.0.0.1", () => console.log(server.address().port));
}

if (options.bare) await beBare();
else {
  try {
    await withBareAedes();
    await withDaemon();
  } finally {
    rmSync(scratch, { recursive: true, force: true, maxRetries: 5 });
  }
}
