// Measures what keeping output within bounds costs: the daemon's CPU for a gigabyte, an agent's own time beside
// the same writes to a plain file in the same process, the API's delay meanwhile, one line of a gigabyte, and
// agents that print nothing: `npm run bench:logs -- [megabytes] [idle agents]` (default 1024 and 300).
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { client } from "./client.mjs";

const megabytes = Number(process.argv[2] ?? 1024);
const idle = Number(process.argv[3] ?? 300);
const lines = 1_000_000;
const rounds = 5;
const here = dirname(fileURLToPath(import.meta.url));
const command = join(here, "../../dist/bin/openstarry-daemon.js");
const printer = join(here, "../fixtures/agents/prints-lines.mjs");
const home = mkdtempSync(join(tmpdir(), "openstarry-bench-"));
const plainFile = join(home, "plain");
const fill = (what) => ["-c", `${what} | head -c ${megabytes * 2 ** 20}; exec sleep 3600`];

const templates = {
  Printer_v1: { command: process.execPath, args: [printer, String(lines), plainFile] },
  Lines_v1: { command: "/bin/sh", args: fill(`yes ${"x".repeat(99)}`) },
  OneLine_v1: { command: "/bin/sh", args: fill("tr '\\0' x </dev/zero") },
  Idle_v1: { command: "/bin/sleep", args: ["3600"] },
};
mkdirSync(join(home, "templates"), { recursive: true, mode: 0o700 });
for (const [template_id, template] of Object.entries(templates)) {
  const document = { template_id, ...template, stop: { grace: "1s" } };
  writeFileSync(join(home, "templates", `${template_id}.json`), JSON.stringify(document));
}
writeFileSync(join(home, "config.json"), JSON.stringify({ plugins: [["http-api", { port: 0 }]] }));

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

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
/** Of all its threads, in seconds; the kernel counts hundredths. */
function cpuOf(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
const memoryOf = (pid, key) =>
  Number(new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]) / 1024;

const logsOf = (id) => join(home, "agents", id, "logs");
const liveOf = (id) =>
  join(logsOf(id), readdirSync(logsOf(id)).find((name) => /^[^.]+\.stdout\.log$/.test(name)) ?? "");
/** How far the archives reach. */
const putAway = (id) =>
  Math.max(
    0,
    ...readdirSync(logsOf(id)).map((name) => Number(/stdout\.\d+-(\d+)\.log$/.exec(name)?.[1] ?? 0)),
  );

async function until(condition, what) {
  const deadline = performance.now() + 300_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`);
    await pause(50);
  }
}

/** Runs an agent that prints so much; asks for the daemon's health meanwhile. */
async function flood(call, pid, id, template_id) {
  const before = cpuOf(pid);
  const begun = performance.now();
  await call("POST", "/agents", { agent_id: id, template_id });
  let longest = 0;
  let done = false;
  const asking = (async () => {
    while (!done) {
      const asked = performance.now();
      await call("GET", "/healthz");
      longest = Math.max(longest, performance.now() - asked);
      await pause(20);
    }
  })();
  const size = megabytes * 2 ** 20;
  await until(
    () => statSync(liveOf(id)).size === size && size - putAway(id) < 10 * 2 ** 20,
    `${id} to be rotated`,
  );
  const seconds = (performance.now() - begun) / 1000;
  done = true;
  await asking;
  const kept = readdirSync(logsOf(id)).reduce(
    (sum, name) => sum + statSync(join(logsOf(id), name)).blocks * 512,
    0,
  );
  const cpu = cpuOf(pid) - before;
  return { seconds, longest, cpu, perGb: (cpu / size) * 1e9, keptMiB: kept / 2 ** 20 };
}

try {
  await run(["start", "--config", join(home, "config.json")]);
  const { pid, port } = JSON.parse(readFileSync(join(home, "daemon.json"), "utf8"));
  const call = client(port, readFileSync(join(home, "token"), "utf8").trim());

  const ratios = [];
  for (let round = 0; round < rounds; round++) {
    const id = `printer${round}`;
    await call("POST", "/agents", { agent_id: id, template_id: "Printer_v1" });
    let told;
    await until(() => {
      const file = liveOf(id).replace("stdout", "stderr");
      told = readFileSync(file, "utf8").trim();
      return told.endsWith("}");
    }, "the printer's figures");
    const { plainMs, ownMs } = JSON.parse(told);
    ratios.push(ownMs / plainMs);
    await call("DELETE", `/agents/${id}?force=true`);
    rmSync(plainFile, { force: true });
  }
  console.log(
    `agent's writes                    ${median(ratios).toFixed(2)} times a plain file's (${ratios.map((it) => it.toFixed(2)).join(", ")}; ${lines} lines of 100 bytes, a write each)`,
  );

  const empty = memoryOf(pid, "VmRSS");
  for (const [id, template, what] of [
    ["lines", "Lines_v1", "lines of 100 bytes"],
    ["one", "OneLine_v1", "one line"],
  ]) {
    const { seconds, longest, cpu, perGb, keptMiB } = await flood(call, pid, id, template);
    console.log(
      `${megabytes} MiB, ${what}`.padEnd(34) +
        `${cpu.toFixed(2)} s of CPU, ${perGb.toFixed(2)} s per GB, in ${seconds.toFixed(1)} s; ${keptMiB.toFixed(0)} MiB left on disk; health asked: ${longest.toFixed(0)} ms at most`,
    );
    const asked = performance.now();
    const { body } = await call("GET", `/agents/${id}/logs?tail=1&encoding=base64`);
    console.log(
      `its last line                     ${body.items.length} pieces in ${(performance.now() - asked).toFixed(0)} ms`,
    );
    await call("DELETE", `/agents/${id}?force=true`);
  }
  console.log(
    `resident memory                   ${empty.toFixed(0)} MiB before, ${memoryOf(pid, "VmHWM").toFixed(0)} MiB at most`,
  );

  const quiet = cpuOf(pid);
  await pause(10_000);
  const alone = cpuOf(pid) - quiet;
  for (let index = 0; index < idle; index++)
    await call("POST", "/agents", { agent_id: `idle${index}`, template_id: "Idle_v1" });
  await pause(10_000);
  const before = cpuOf(pid);
  await pause(20_000);
  console.log(
    `${idle} idle agents`.padEnd(34) +
      `${(((cpuOf(pid) - before) / 20) * 100).toFixed(2)} % of a core; ${((alone / 10) * 100).toFixed(2)} % without them`,
  );
} finally {
  // Where something went wrong, nothing is left running either.
  await run(["stop"]).catch(() => {});
  rmSync(home, { recursive: true, force: true });
}
