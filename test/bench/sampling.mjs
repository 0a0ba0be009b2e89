// Measures what sampling costs the daemon: without a sampler, with sampler-pidusage and with sampler-procfs,
// one after the other in one run. All agents are idle (`sleep`).
//   npm run bench:sampling -- [--agents 200] [--seconds 20] [--interval 1s] [--cgroups false] [--pm2]
// --pm2 measures PM2 as well, asked for its list at the same pace: it is installed into a temporary folder.
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    agents: { type: "string", default: "200" },
    seconds: { type: "string", default: "20" },
    interval: { type: "string", default: "1s" },
    cgroups: { type: "string", default: "true" },
    pm2: { type: "boolean", default: false },
  },
});
const count = Number(values.agents);
const seconds = Number(values.seconds);
const scratch = mkdtempSync(join(tmpdir(), "openstarry-bench-"));
const command = join(dirname(fileURLToPath(import.meta.url)), "../../dist/bin/openstarry-daemon.js");

/** Loaded into the measured process: at a SIGUSR2 it writes down how late its timers were since the last. */
const RESOLUTION_MS = 5;
const preload = join(scratch, "loop-delay.mjs");
writeFileSync(
  preload,
  `import { monitorEventLoopDelay } from "node:perf_hooks";
import { writeFileSync } from "node:fs";
import { client } from "./client.mjs";
const delay = monitorEventLoopDelay({ resolution: ${RESOLUTION_MS} });
delay.enable();
const late = (ns) => Math.max(0, ns / 1e6 - ${RESOLUTION_MS});
process.on("SIGUSR2", () => {
  writeFileSync(process.env.BENCH_DELAYS, JSON.stringify({ p99: late(delay.percentile(99)), max: late(delay.max) }));
  delay.reset();
});
`,
);

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const statusOf = (pid) => readFileSync(`/proc/${pid}/status`, "utf8");
const rssOf = (pid) => Number(/^VmRSS:\s+(\d+)/m.exec(statusOf(pid))[1]) / 1024;
const cpuMsOf = (pid) => {
  const text = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
};

/** What one process uses while it does whatever it does. */
async function observe(pid, delaysFile) {
  process.kill(pid, "SIGUSR2");
  const [beganMs, cpuMs] = [performance.now(), cpuMsOf(pid)];
  await pause(seconds * 1000);
  const percent = ((cpuMsOf(pid) - cpuMs) / (performance.now() - beganMs)) * 100;
  process.kill(pid, "SIGUSR2");
  await pause(500);
  return { percent, rss: rssOf(pid), ...JSON.parse(readFileSync(delaysFile, "utf8")) };
}

async function measureDaemon(name, plugins) {
  const home = join(scratch, name);
  mkdirSync(join(home, "templates"), { recursive: true, mode: 0o700 });
  const template = { template_id: "Idle_v1", command: "/bin/sleep", args: ["3600"] };
  writeFileSync(join(home, "templates", "Idle_v1.json"), JSON.stringify(template));
  const spawner = ["spawner-process", { cgroups: values.cgroups === "true" }];
  const config = join(home, "config.json");
  writeFileSync(config, JSON.stringify({ plugins: [["http-api", { port: 0 }], spawner, ...plugins] }));
  const delays = join(scratch, `${name}.json`);
  const log = openSync(join(scratch, `${name}.log`), "w");
  const daemon = spawn(
    process.execPath,
    // The flag is that of a daemon in the background.
    [
      "--max-semi-space-size=2",
      "--import",
      preload,
      command,
      "start",
      "--foreground",
      "--home",
      home,
      "--config",
      config,
    ],
    { stdio: ["ignore", log, log], env: { ...process.env, BENCH_DELAYS: delays } },
  );
  const gone = new Promise((resolve) => daemon.once("exit", resolve));
  try {
    let info;
    for (let tries = 0; info === undefined; tries++) {
      await pause(100);
      try {
        info = JSON.parse(readFileSync(join(home, "daemon.json"), "utf8"));
      } catch (error) {
        if (tries > 100) throw error;
      }
    }
    const call = client(info.port, readFileSync(join(home, "token"), "utf8").trim(), { maxSockets: 4 });
    let next = 0;
    const worker = async () => {
      while (next < count) {
        const { status, body } = await call("POST", "/agents", {
          agent_id: `a${next++}`,
          template_id: "Idle_v1",
        });
        if (status !== 201) throw new Error(JSON.stringify(body));
      }
    };
    await Promise.all([worker(), worker(), worker(), worker()]);
    // The figures of all agents are there, and what the starts left behind is cleared away.
    await pause(8000);
    const figures = await observe(daemon.pid, delays);
    const { items } = (await call("GET", "/agents?limit=1000")).body;
    const sampled = items.filter(({ resources }) => resources !== undefined).length;
    return { ...figures, sampled };
  } finally {
    daemon.kill("SIGTERM");
    await gone;
  }
}

/** PM2's daemon, asked for the figures of everything once in an interval, as `pm2 monit` does. */
async function measurePm2() {
  const folder = join(scratch, "pm2");
  mkdirSync(folder);
  const install = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder, "pm2"];
  if (spawnSync("npm", install, { stdio: ["ignore", "ignore", "inherit"] }).status !== 0) return undefined;
  const delays = join(scratch, "pm2.json");
  // Read by PM2 when it is loaded, and inherited by its daemon.
  Object.assign(process.env, { PM2_HOME: join(folder, "home"), BENCH_DELAYS: delays });
  process.env.NODE_OPTIONS = `--import ${preload}`;
  const pm2 = createRequire(join(folder, "package.json"))("pm2");
  const promised = (name, ...given) =>
    new Promise((resolve, reject) =>
      pm2[name](...given, (error, answer) => (error ? reject(error) : resolve(answer))),
    );
  await promised("connect");
  const pid = Number(readFileSync(join(folder, "home", "pm2.pid"), "utf8"));
  try {
    const app = { name: "idle", script: "/bin/sleep", args: "3600", interpreter: "none", exec_mode: "fork" };
    await promised("start", { ...app, instances: count, autorestart: false });
    await pause(8000);
    const asking = setInterval(() => void promised("list").catch(() => {}), 1000);
    const figures = await observe(pid, delays);
    clearInterval(asking);
    return { ...figures, sampled: (await promised("list")).length };
  } finally {
    await promised("killDaemon").catch(() => {});
    pm2.disconnect();
  }
}

const interval = { interval: values.interval };
try {
  const variants = [
    ["no sampler", () => measureDaemon("none", [["sampler-pidusage", false]])],
    ["sampler-pidusage", () => measureDaemon("pidusage", [["sampler-pidusage", interval]])],
    ["sampler-procfs", () => measureDaemon("procfs", [["sampler-procfs", interval]])],
    ...(values.pm2 ? [["PM2, asked every 1s", measurePm2]] : []),
  ];
  console.log(
    `${count} idle agents, every ${values.interval}, cgroups ${values.cgroups}, over ${seconds} s each`,
  );
  console.log("                      CPU % of a core   RSS MB   loop delay p99 / max ms   with figures");
  for (const [name, measure] of variants) {
    const it = await measure();
    const cells = it
      ? [
          it.percent.toFixed(1).padStart(15),
          it.rss.toFixed(0).padStart(9),
          `${it.p99.toFixed(1)} / ${it.max.toFixed(0)}`.padStart(26),
          String(it.sampled).padStart(15),
        ]
      : ["   could not be installed"];
    console.log(`${name.padEnd(22)}${cells.join("")}`);
  }
} finally {
  rmSync(scratch, { recursive: true, force: true, maxRetries: 5 });
}
// What PM2 leaves open must not keep this waiting.
process.exit();
