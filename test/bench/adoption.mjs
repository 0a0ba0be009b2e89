// Measures how long a daemon takes to have its agents back: after kill -9, and by a clean restart, with
// agents that idle: `npm run bench:adoption -- [agents]` (default 500).
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { client } from "./client.mjs";

const count = Number(process.argv[2] ?? 500);
const rounds = 5;
const command = join(dirname(fileURLToPath(import.meta.url)), "../../dist/bin/openstarry-daemon.js");
const home = mkdtempSync(join(tmpdir(), "openstarry-bench-"));
const config = join(home, "config.json");

mkdirSync(join(home, "templates"), { mode: 0o700 });
writeFileSync(
  join(home, "templates", "Idle_v1.json"),
  JSON.stringify({ template_id: "Idle_v1", command: "/bin/sleep", args: ["36000"], stop: { grace: "5s" } }),
);
writeFileSync(config, JSON.stringify({ plugins: [["http-api", { port: 0 }]] }));

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

const daemonInfo = () => JSON.parse(readFileSync(join(home, "daemon.json"), "utf8"));

/** Asked anew each time: the daemon of that moment may have another port, and keeps no connection of the last. */
function call(method, path, body) {
  const ask = client(daemonInfo().port, readFileSync(join(home, "token"), "utf8").trim());
  return ask(method, path, body).finally(ask.end);
}

/** The kernel's clock ticks at which the process began: with its pid, the process itself. */
function beganAt(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    // It is gone.
    return undefined;
  }
}

async function agents() {
  const { body } = await call("GET", "/agents?limit=1000");
  return new Map(body.items.map((agent) => [agent.agent_id, agent]));
}

/** Asks until all agents run, and answers how many of them are not who they were before. */
async function adopted(before) {
  for (;;) {
    const now = await agents();
    const all = [...now.values()];
    if (all.length === before.size && all.every(({ state }) => state === "running")) {
      const changed = all.filter(({ agent_id, pid, run_id, restarts }) => {
        const was = before.get(agent_id);
        return restarts > 0 || was.run_id !== run_id || was.pid !== pid || was.began !== beganAt(pid);
      });
      return changed.length;
    }
    await delay(10);
  }
}

async function fill() {
  let next = 0;
  const lane = async () => {
    while (next < count) {
      const input = { agent_id: `a${next++}`, template_id: "Idle_v1" };
      const { status, body } = await call("POST", "/agents", input);
      if (status !== 201) throw new Error(JSON.stringify(body));
    }
  };
  await Promise.all(Array.from({ length: 8 }, lane));
}

async function killed() {
  const { pid } = daemonInfo();
  process.kill(pid, "SIGKILL");
  while (beganAt(pid) !== undefined) await delay(1);
  return () => run(["start", "--config", config]);
}

/** From the command's first moment until it says that the daemon is ready, and until all agents are back. */
async function measure(prepare) {
  const before = await agents();
  for (const agent of before.values()) agent.began = beganAt(agent.pid);
  const bring = await prepare();
  const begun = performance.now();
  await bring();
  const readyMs = performance.now() - begun;
  const changed = await adopted(before);
  return { readyMs, adoptedMs: performance.now() - begun, changed };
}

async function row(name, prepare) {
  const all = [];
  for (let round = 0; round < rounds; round++) all.push(await measure(prepare));
  const range = (pick) => {
    const values = all.map(pick).sort((a, b) => a - b);
    return `${Math.round(values[0])} to ${Math.round(values.at(-1))} ms`;
  };
  const changed = all.reduce((sum, it) => sum + it.changed, 0);
  console.log(
    [
      name.padEnd(18),
      range((it) => it.readyMs).padEnd(18),
      range((it) => it.adoptedMs).padEnd(18),
      changed,
    ].join(" "),
  );
}

try {
  await run(["start", "--config", config]);
  const empty = await measure(killed);
  await fill();
  console.log(
    `${count} agents, ${rounds} times each; an empty daemon starts in ${Math.round(empty.readyMs)} ms`,
  );
  console.log("                   ready              all adopted        restarted or changed");
  await row("kill -9 and start", killed);
  await row("restart", async () => () => run(["restart"]));
} finally {
  await run(["stop"]).catch(() => {});
  rmSync(home, { recursive: true, force: true });
}
