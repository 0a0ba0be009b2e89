import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { stripVTControlCharacters } from "node:util";
import { afterEach, describe, expect, test } from "vitest";
import type { Agent } from "../../core/index.js";
import { COMMAND, startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { waitFor } from "../helpers/wait-for.js";

const Burner = { template_id: "Burner", command: "sh", args: ["-c", "while :; do :; done"] };
const Sleeper = { template_id: "Sleeper", command: "sleep", args: ["1000"] };
/** Its child holds the memory, and it waits. */
const Holder = {
  template_id: "Holder",
  command: "sh",
  args: [
    "-c",
    `'${process.execPath}' -e 'const held = Buffer.alloc(96 << 20, 1); setInterval(() => held, 1e6)' & wait`,
  ],
};
const ESC = "\u001b";
/** Every frame begins with it. */
const HOME = `${ESC}[H`;

const templates = [Burner, Sleeper, Holder];

let daemon: TestDaemon;
const stops: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop();
});

async function start(plugins: readonly unknown[]): Promise<void> {
  daemon = await startDaemon({ templates, config: { plugins } });
  stops.push(daemon.stop);
}

const run = (...templateIds: string[]) =>
  Promise.all(
    templateIds.map((template_id) =>
      daemon.client.agents.create({ agent_id: template_id.toLowerCase(), template_id }),
    ),
  );

/** The agent once it shows figures, and they are as wanted. */
function measured(
  agentId: string,
  wanted: (resources: NonNullable<Agent["resources"]>) => boolean = () => true,
) {
  return waitFor(
    async () => {
      const agent = await daemon.client.agents.get(agentId);
      return agent.resources && wanted(agent.resources) && { ...agent, resources: agent.resources };
    },
    { what: `figures of ${agentId}`, timeoutMs: 30_000, diagnose: () => daemon.client.agents.get(agentId) },
  );
}

/** User and system time of one process, in milliseconds. */
function cpuMsOf(pid = 0): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

describe.each([
  ["sampler-pidusage", []],
  ["sampler-procfs", ["sampler-procfs"]],
])("with %s", (name, plugins) => {
  test("agents show what their trees use, over a restart of the daemon, until they are gone", async () => {
    await start(plugins);
    const loaded = (await daemon.client.plugins()).items.map((plugin) => plugin.name);
    expect(loaded.filter((it) => it.startsWith("sampler-") && it !== "sampler-runner")).toEqual([name]);
    await run("Burner", "Sleeper", "Holder");

    const burner = await measured("burner", ({ cpu_percent }) => cpu_percent > 20);
    expect(burner.resources).toMatchObject({ processes: 1 });
    // What the kernel says now is no less than what was measured before, and the other way round.
    const nowMs = cpuMsOf(burner.pid);
    expect(burner.resources.cpu_ms).toBeLessThanOrEqual(nowMs);
    const later = await measured("burner", ({ cpu_ms }) => cpu_ms >= nowMs);
    expect(later.resources.cpu_ms).toBeLessThanOrEqual(cpuMsOf(burner.pid));
    expect((await measured("sleeper")).resources.cpu_percent).toBeLessThan(5);

    const holder = await measured("holder", ({ memory_bytes }) => memory_bytes > 96 * 2 ** 20);
    expect(holder.resources).toMatchObject({ processes: 2 });
    const { resources } = await daemon.client.agents.get("holder", { pss: true });
    expect(resources?.pss_bytes).toBeGreaterThan(96 * 2 ** 20);

    expect((await daemon.cli(["restart"])).code).toBe(0);
    const adopted = await measured("burner", ({ cpu_percent }) => cpu_percent > 20);
    expect(adopted).toMatchObject({ run_id: burner.run_id, pid: burner.pid });
    expect(adopted.resources.cpu_ms).toBeGreaterThan(later.resources.cpu_ms);
    expect((await daemon.client.agents.samples("burner", { points: 1 })).items).toMatchObject([
      { run_id: burner.run_id, processes: 1 },
    ]);

    const ended = await daemon.client.agents.stop("burner", { force: true });
    expect(ended.resources).toBeUndefined();
    expect((await daemon.client.agents.samples("burner")).items).not.toEqual([]);
    await daemon.client.agents.remove("burner");
    await expect(daemon.client.agents.samples("burner")).rejects.toMatchObject({ code: "agent_not_found" });
    expect((await daemon.client.daemon.status()).problems).toEqual([]);
  }, 120_000);
});

test("without a sampler everything works, and nobody shows figures", async () => {
  await start([["sampler-pidusage", false]]);
  await run("Sleeper");
  expect((await daemon.cli(["list"])).stdout).toMatch(/^sleeper +running +- +\d+ +- +- +\d+s /m);
  expect((await daemon.cli(["top", "--once"])).stdout).toMatch(/^sleeper +\d+ +- +- +- /m);
  expect((await daemon.client.agents.samples("sleeper")).items).toEqual([]);
  expect((await daemon.client.agents.get("sleeper")).resources).toBeUndefined();
});

test("list, agent status and top show the figures; top runs in a terminal until q", async () => {
  await start(["sampler-procfs"]);
  await run("Sleeper", "Burner");
  await measured("burner", ({ cpu_percent }) => cpu_percent > 10);
  await measured("sleeper");

  expect((await daemon.cli(["list"])).stdout).toMatch(/^AGENT +STATE +HEALTH +PID +CPU +MEM +UP /);
  expect((await daemon.cli(["list"])).stdout).toMatch(/^burner .* \d+(\.\d)?% +\d+(\.\d)?[KM]iB /m);
  expect((await daemon.cli(["agent", "status", "burner"])).stdout).toMatch(
    /resources +CPU [\d.]+% of one core \(.+ total\), memory [\d.]+[KM]iB, processes 1$/m,
  );
  const once = (await daemon.cli(["top"])).stdout;
  expect(once).toMatch(
    /^2 running agents, CPU [\d.]+% of one core, memory [\d.]+[KM]iB, 2 processes\n\nAGENT /,
  );
  expect(once.indexOf("\nburner ")).toBeLessThan(once.indexOf("\nsleeper "));
  const { items } = JSON.parse((await daemon.cli(["top", "--json"])).stdout);
  expect(items.map((agent: Agent) => agent.agent_id)).toEqual(["burner", "sleeper"]);

  const shown = await inTerminal(["top", "--interval", "200ms"], ["m", "q"]);
  // The screen of its own is left again, the cursor is back, and nothing was printed below.
  expect(shown.text.startsWith(`${ESC}[?1049h`)).toBe(true);
  expect(shown.text.endsWith(`${ESC}[?25h${ESC}[?1049l`)).toBe(true);
  expect(shown.code).toBe(0);
  const frames = shown.text.split(HOME).slice(1);
  expect(frames.length).toBeGreaterThanOrEqual(3);
  for (const frame of frames) {
    const lines = frame.split("\r\n").map(stripVTControlCharacters);
    expect(lines.length).toBeLessThanOrEqual(10);
    for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(100);
    expect(lines.at(-1)).toContain("q: quit");
  }
});

/** The command in a terminal of 10 rows and 100 columns; each key is pressed when another frame is there. */
async function inTerminal(args: readonly string[], keys: readonly string[]) {
  const line = `stty rows 10 cols 100; exec ${[process.execPath, COMMAND, "--home", daemon.home, ...args].join(" ")}`;
  const child = spawn("script", ["-qec", line, "/dev/null"], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, TERM: "xterm" },
  });
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (more: string) => {
    text += more;
  });
  const ended = new Promise<number>((resolve) => child.once("close", (code) => resolve(code ?? -1)));
  try {
    for (const key of keys) {
      const frames = text.split(HOME).length;
      await waitFor(() => text.split(HOME).length > frames, { what: "another frame", timeoutMs: 20_000 });
      child.stdin.write(key);
    }
    return { code: await ended, text };
  } finally {
    child.kill("SIGKILL");
  }
}

test("pidusage does not take the files that starts need: it refuses, and says what to do", async () => {
  const module = fileURLToPath(
    new URL("../../dist/plugins/sampler-pidusage/pidusage-sampler.js", import.meta.url),
  );
  const script = `import { createPidusageSampler } from "${module}";
    const processes = Array.from({ length: 40 }, (_, index) => ({ pid: index + 1, start_ticks: 0 }));
    await createPidusageSampler(1000).sample([{ agent_id: "a", run_id: "r", processes }]);`;
  const child = spawn(
    "sh",
    ["-c", `ulimit -n 64; exec "$0" --input-type=module -e "$1"`, process.execPath, script],
    {
      stdio: ["ignore", "ignore", "pipe"],
    },
  );
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  expect(await new Promise((resolve) => child.once("close", resolve))).toBe(1);
  expect(said).toContain(
    "pidusage would keep 40 files open, one for each process, of the 64 that the daemon",
  );
});
