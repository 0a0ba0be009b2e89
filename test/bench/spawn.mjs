// Measures the daemon beside a bare Node process with the same three routes around child_process.spawn,
// in one run, so that the machine's noise falls on both: `npm run bench -- [agents]` (default 500).
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const count = Number(process.argv[2] ?? 500);
const rounds = 60;
const here = dirname(fileURLToPath(import.meta.url));
const command = join(here, "../../dist/bin/openstarry-daemon.js");
const home = mkdtempSync(join(tmpdir(), "openstarry-bench-"));

mkdirSync(join(home, "templates"), { recursive: true, mode: 0o700 });
writeFileSync(
  join(home, "templates", "Idle_v1.json"),
  JSON.stringify({
    template_id: "Idle_v1",
    command: "/bin/sleep",
    args: ["3600"],
    restart: { policy: "always", max_restarts: 1000000, backoff: { min: "0ms", max: "0ms" } },
    stop: { grace: "5s" },
  }),
);
writeFileSync(join(home, "config.json"), JSON.stringify({ plugins: [["http-api", { port: 0 }]] }));

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const rssOf = (pid) => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]) / 1024;

async function timed(work) {
  const begun = performance.now();
  await work();
  return performance.now() - begun;
}

/** The least that could be called a supervisor: no journal, no log files, no tree, no restart rules. */
const bareSource = `
import http from "node:http";
import { spawn } from "node:child_process";
import { client } from "./client.mjs";
const agents = new Map();
const start = (id) => new Promise((done) => {
  const child = spawn("/bin/sleep", ["3600"], { detached: true, stdio: "ignore" });
  child.once("spawn", () => { agents.set(id, child); console.log("pid " + id + " " + child.pid); done(child); });
  child.once("exit", () => agents.get(id) === child && start(id));
});
http.createServer(async (request, response) => {
  let text = "";
  for await (const chunk of request) text += chunk;
  const [, , id] = request.url.split("/");
  let answer = {};
  if (request.method === "POST") { const { agent_id } = JSON.parse(text); answer = { pid: (await start(agent_id)).pid }; }
  else if (request.method === "GET") answer = { pid: agents.get(id)?.pid };
  else {
    const all = [...agents.values()];
    agents.clear();
    await Promise.all(all.map((child) => new Promise((done) => { child.once("exit", done); child.kill("SIGTERM"); })));
  }
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify(answer));
}).listen(0, "127.0.0.1", function () { console.log("port " + this.address().port); });
`;

function lines(stream, onLine) {
  let rest = "";
  stream.setEncoding("utf8");
  stream.on("data", (chunk) => {
    const parts = (rest + chunk).split("\n");
    rest = parts.pop();
    for (const part of parts) onLine(part);
  });
}

/** Kills an agent and waits to be told of its successor. */
async function restarts(pidOf, nextPid) {
  const times = [];
  for (let round = 0; round < rounds; round++) {
    const id = `a${round % Math.min(20, count)}`;
    const pid = await pidOf(id);
    const told = nextPid(id, pid);
    const begun = performance.now();
    process.kill(pid, "SIGKILL");
    await told;
    times.push(performance.now() - begun);
  }
  return median(times);
}

async function measureBare() {
  const child = spawn(process.execPath, ["--input-type=module", "-e", bareSource], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const waiting = new Map();
  const port = await new Promise((resolve) => {
    lines(child.stdout, (line) => {
      const [word, id, pid] = line.split(" ");
      if (word === "port") resolve(Number(id));
      else waiting.get(id)?.(Number(pid));
    });
  });
  const call = client(port);
  const startMs = await timed(async () => {
    for (let index = 0; index < count; index++) await call("POST", "/agents", { agent_id: `a${index}` });
  });
  const restartMs = await restarts(
    async (id) => (await call("GET", `/agents/${id}`)).body.pid,
    (id) => new Promise((resolve) => waiting.set(id, resolve)),
  );
  const rss = rssOf(child.pid);
  const stopMs = await timed(() => call("DELETE", "/agents"));
  child.kill("SIGKILL");
  return { startMs, restartMs, stopMs, rss };
}

function run(args) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [command, ...args, "--home", home], {
      stdio: ["ignore", "ignore", "inherit"],
    });
    child.once("exit", (code) =>
      code === 0 ? resolve() : reject(new Error(`${args[0]} ended with ${code}`)),
    );
  });
}

async function measureDaemon() {
  await run(["start", "--config", join(home, "config.json")]);
  const { pid, port } = JSON.parse(readFileSync(join(home, "daemon.json"), "utf8"));
  const token = readFileSync(join(home, "token"), "utf8").trim();
  const call = client(port, token);
  const emptyRss = rssOf(pid);
  const startMs = await timed(async () => {
    for (let index = 0; index < count; index++) {
      const { status, body } = await call("POST", "/agents", {
        agent_id: `a${index}`,
        template_id: "Idle_v1",
      });
      if (status !== 201) throw new Error(JSON.stringify(body));
    }
  });
  const rss = rssOf(pid);
  const waiting = new Map();
  const events = await new Promise((resolve) => {
    http.get(
      { host: "127.0.0.1", port, path: "/events", headers: { authorization: `Bearer ${token}` } },
      resolve,
    );
  });
  lines(events, (line) => {
    if (!line.startsWith("data:")) return;
    const { type, agent_id, data } = JSON.parse(line.slice(5));
    if (type === "agent.state" && data.to === "running") waiting.get(agent_id)?.();
  });
  const restartMs = await restarts(
    async (id) => (await call("GET", `/agents/${id}`)).body.pid,
    (id) => new Promise((resolve) => waiting.set(id, resolve)),
  );
  events.destroy();
  const stopMs = await timed(() => run(["stop"]));
  return { startMs, restartMs, stopMs, rss, emptyRss };
}

try {
  const bare = await measureBare();
  const daemon = await measureDaemon();
  const again = await measureBare();
  const rate = ({ startMs }) => Math.round((count / startMs) * 1000);
  const bareStart = (bare.startMs + again.startMs) / 2;
  console.log(`agents                    ${count}`);
  console.log(
    `starts per second         daemon ${rate(daemon)}, bare ${rate(bare)} before and ${rate(again)} after; ${(daemon.startMs / bareStart).toFixed(2)} times the bare time`,
  );
  console.log(
    `kill to new pid, median   daemon ${daemon.restartMs.toFixed(1)} ms, bare ${bare.restartMs.toFixed(1)} and ${again.restartMs.toFixed(1)} ms (${rounds} kills)`,
  );
  console.log(
    `stop of all               daemon ${Math.round(daemon.stopMs)} ms with its own end and the command's, bare ${Math.round(bare.stopMs)} ms`,
  );
  console.log(
    `resident memory           daemon ${Math.round(daemon.emptyRss)} MiB empty, ${Math.round(daemon.rss)} MiB with all; bare ${Math.round(bare.rss)} MiB`,
  );
} finally {
  // Where something went wrong, nothing is left running either.
  await run(["stop"]).catch(() => {});
  rmSync(home, { recursive: true, force: true });
}
