import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lockHolder } from "../../bin/daemon/lock.js";
import { builtins } from "../../plugins/builtins.js";
import { fixtureAgent } from "../helpers/agents.js";
import { runCli } from "../helpers/daemon.js";
import { processesOf, processesOfAgent } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const Sleeper = { template_id: "Sleeper", ...fixtureAgent("sleeper.sh") };
const Reporter = {
  template_id: "Reporter",
  ...fixtureAgent("heartbeats.mjs"),
  liveness: { type: "heartbeat", interval: "60s" },
};
const Lead = { ...Sleeper, template_id: "Lead", children: { max: 1 } };
const waiting = ["notify", "http", "tcp", "exec", "log"].map((type) => ({
  ...Sleeper,
  template_id: `Waits-${type}`,
  readiness: { type },
}));
const master = { agent_id: "master", template_id: "Sleeper" };

let dir: string;
let count = 0;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "openstarry-smaller-"));
  mkdirSync(join(dir, "templates"));
  for (const it of [Sleeper, Reporter, Lead, ...waiting])
    writeFileSync(join(dir, "templates", `${it.template_id}.json`), JSON.stringify(it));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Starts a daemon of its own on this config, tells what came of it, and ends it. */
async function withDaemon(
  config: { name: string; content: string },
  look: (daemon: {
    home: string;
    start: Awaited<ReturnType<typeof runCli>>;
    cli: typeof runCli;
  }) => Promise<void>,
): Promise<void> {
  const home = join(dir, `home-${count++}`);
  const file = join(dir, config.name);
  writeFileSync(file, config.content);
  const cli: typeof runCli = (args, options) => runCli(["--home", home, ...args], { cwd: dir, ...options });
  try {
    await look({ home, start: await cli(["start", "--config", file]), cli });
  } finally {
    const stop = await cli(["stop"]);
    expect([stop.code, stop.stderr, processesOf(home), lockHolder(home)]).toEqual([0, "", [], undefined]);
  }
}

/** The config without these plugins, and with a port of its own where there is an API. */
function without(...names: string[]): { name: string; content: string } {
  const api = names.includes("http-api") ? [] : [["http-api", { port: 0 }]];
  const plugins = [...api, ...names.map((name) => [name, false])];
  return {
    name: "c.json",
    content: JSON.stringify({ agents: [master], templates: ["./templates"], plugins }),
  };
}

/** What the kernel, or another default, cannot do without: the slot that the refusal names. */
const NEEDED: Record<string, string> = {
  "journal-sqlite": "journal",
  "template-source-file": "templateSource",
  "restart-policy-intensity": "restartPolicy",
  "spawner-process": "spawner",
  "authenticator-tokens": "authenticator",
  "authorizer-tree": "authorizer",
};
const defaults = [...builtins].filter(([, plugin]) => plugin.default).map(([name]) => name);

describe("without one of the built-in plugins", () => {
  test.each(Object.entries(NEEDED))("%s: one error, which says what is missing", async (name, slot) => {
    await withDaemon(without(name), async ({ home, start }) => {
      expect([start.code, start.stdout]).toEqual([2, ""]);
      expect(start.stderr).toMatch(new RegExp(`^error: .*${slot}.*\nhint: .+\n$`));
      expect(processesOf(home)).toEqual([]);
    });
  });

  test.each(defaults.filter((name) => !(name in NEEDED)))("%s: a smaller daemon that works", async (name) => {
    await withDaemon(without(name), async ({ home, start, cli }) => {
      expect([start.code, start.stderr]).toEqual([0, ""]);
      await waitFor(() => processesOfAgent(home, "master").length === 2, { what: "the master and its shim" });
      const status = await cli(["status", "--json"]);
      expect([status.code, JSON.parse(status.stdout)]).toMatchObject([
        0,
        { running: true, pid: lockHolder(home) },
      ]);
      await WHAT_IS_LEFT[name]?.(cli);
    });
  });
});

type Cli = typeof runCli;
const run = (cli: Cli, template: string) => cli(["run", template, "--id", "one"]);

/** What a daemon without this plugin does, and how it says what it does not. */
const WHAT_IS_LEFT: Record<string, (cli: Cli) => Promise<void>> = {
  async "operation-agents"(cli) {
    expect(await run(cli, "Sleeper")).toMatchObject({ code: 4, stderr: expect.stringMatching(/^error: /) });
    expect((await cli(["templates"])).stdout).toContain("Sleeper");
  },
  async "operation-templates"(cli) {
    expect((await run(cli, "Sleeper")).stdout).toMatch(/^one +running/);
    expect(await cli(["templates"])).toMatchObject({ code: 4, stderr: expect.stringMatching(/^error: /) });
  },
  async "state-sqlite"(cli) {
    expect((await run(cli, "Sleeper")).stdout).toMatch(/^one +running/);
  },
  async "bus-mqtt"(cli) {
    expect((await run(cli, "Sleeper")).stdout).toMatch(/^one +running/);
  },
  async "operation-daemon"(cli) {
    expect((await run(cli, "Sleeper")).stdout).toMatch(/^one +running/);
    expect((await cli(["list"])).stdout).toMatch(/^master +running/m);
    expect((await cli(["status"])).stdout).toContain("disables the plugin operation-daemon");
  },
  async "agent-manager-tool"(cli) {
    expect((await run(cli, "Sleeper")).stdout).toMatch(/^one +running/);
  },
  async "policy-budget"(cli) {
    expect((await run(cli, "Sleeper")).stdout).toMatch(/^one +running/);
  },
  async "policy-memory-pressure"(cli) {
    expect((await run(cli, "Sleeper")).stdout).toMatch(/^one +running/);
  },
  async "probe-runner"(cli) {
    const refused = await run(cli, "Reporter");
    expect([refused.code, refused.stderr]).toEqual([
      2,
      expect.stringMatching(/Reporter.*needs a plugin that provides it; add probe-runner/),
    ]);
    expect((await run(cli, "Sleeper")).stdout).toMatch(/^one +running/);
  },
  async "probe-pid"(cli) {
    expect((await run(cli, "Reporter")).stdout).toMatch(/^one +running/);
  },
  async "probe-heartbeat"(cli) {
    const refused = await run(cli, "Reporter");
    expect([refused.code, refused.stderr]).toEqual([
      2,
      expect.stringMatching(/Reporter.*liveness.*heartbeat/),
    ]);
    expect((await run(cli, "Sleeper")).stdout).toMatch(/^one +running/);
  },
  ...Object.fromEntries(
    ["notify", "http", "tcp", "exec", "log"].map((type) => [`probe-${type}`, withoutProbe(type)]),
  ),
  async "operation-state"(cli) {
    expect((await run(cli, "Sleeper")).stdout).toMatch(/^one +running/);
  },
  async "operation-bus"(cli) {
    expect((await run(cli, "Sleeper")).stdout).toMatch(/^one +running/);
  },
  async "policy-resources"(cli) {
    expect((await run(cli, "Sleeper")).stdout).toMatch(/^one +running/);
  },
  async "sampler-pidusage"(cli) {
    expect((await run(cli, "Sleeper")).stdout).toMatch(/^one +running/);
    expect((await cli(["list", "--json"])).stdout).not.toContain("cpu_percent");
  },
  async "sampler-runner"(cli) {
    expect((await run(cli, "Sleeper")).stdout).toMatch(/^one +running/);
    expect((await cli(["list", "--json"])).stdout).not.toContain("cpu_percent");
  },
  async "start-gate-master-first"(cli) {
    expect((await run(cli, "Sleeper")).stdout).toMatch(/^one +running/);
  },
  async "policy-children"(cli) {
    const refused = await run(cli, "Lead");
    expect([refused.code, refused.stderr]).toEqual([
      2,
      expect.stringMatching(/Lead.*"children" needs a plugin that provides it; add policy-children/),
    ]);
    expect((await run(cli, "Sleeper")).stdout).toMatch(/^one +running/);
  },
  async "http-api"(cli) {
    expect((await cli(["list"])).code).not.toBe(0);
  },
};

function withoutProbe(type: string): (cli: Cli) => Promise<void> {
  return async (cli) => {
    const refused = await run(cli, `Waits-${type}`);
    expect([refused.code, refused.stderr]).toEqual([
      2,
      expect.stringMatching(new RegExp(`there is no readiness probe of type "${type}"`)),
    ]);
    expect((await run(cli, "Sleeper")).stdout).toMatch(/^one +running/);
  };
}

test("every default is either needed or missed by nobody who does not use it", () => {
  expect(defaults.sort()).toEqual([...Object.keys(NEEDED), ...Object.keys(WHAT_IS_LEFT)].sort());
});

test("without all that can be left out, the master runs all the same", async () => {
  await withDaemon(without(...Object.keys(WHAT_IS_LEFT)), async ({ home, start }) => {
    expect([start.code, start.stderr]).toEqual([0, ""]);
    await waitFor(() => processesOfAgent(home, "master").length === 2, { what: "the master and its shim" });
  });
});

test("journal-memory in the place of journal-sqlite", async () => {
  const config = {
    agents: [master],
    templates: ["./templates"],
    plugins: ["journal-memory", ["http-api", { port: 0 }]],
  };
  await withDaemon({ name: "memory.json", content: JSON.stringify(config) }, async ({ start, cli }) => {
    expect([start.code, start.stderr]).toEqual([0, ""]);
    expect((await run(cli, "Sleeper")).stdout).toMatch(/^one +running/);
  });
});

describe("the format of the config makes no difference", () => {
  const seen = new Map<string, unknown>();
  const agents = `[{ "agent_id": "master", "template_id": "Sleeper", "labels": { "team": "x" } }, { "agent_id": "second", "template_id": "Sleeper" }]`;
  const body = (quote: string) =>
    `${quote}agents${quote}: ${agents}, ${quote}templates${quote}: ["./templates"], ${quote}on_daemon_stop${quote}: "stop",
     ${quote}defaults${quote}: { "labels": { "site": "lab" } }, ${quote}plugins${quote}: [["http-api", { "port": 0 }], ["probe-pid", false]]`;
  const yaml = `agents:
  - agent_id: master
    template_id: Sleeper
    labels: { team: x }
  - { agent_id: second, template_id: Sleeper }
templates: [./templates]
on_daemon_stop: stop
defaults: { labels: { site: lab } }
plugins:
  - [http-api, { port: 0 }]
  - [probe-pid, false]
`;
  const formats: [string, string][] = [
    ["same.json", `{${body('"')}}`],
    ["same.yaml", yaml],
    [
      "same.ts",
      `import { defineConfig } from "openstarry-daemon";\nexport default defineConfig({${body("")}});`,
    ],
    ["same.cjs", `module.exports = {${body("")}};`],
  ];

  test.each(formats)("%s", async (name, content) => {
    await withDaemon({ name, content }, async ({ start, cli }) => {
      expect([start.code, start.stderr]).toEqual([0, ""]);
      const list = JSON.parse((await cli(["list", "--json"])).stdout).items as Record<string, unknown>[];
      const plugins = JSON.parse((await cli(["plugins", "--json"])).stdout);
      // What differs between any two daemons.
      const same = list.map(({ pid, run_id, created_at, started_at, ready_at, resources, ...rest }) => rest);
      seen.set(name, { agents: same, plugins });
      expect(list).toHaveLength(2);
      expect(seen.get(name)).toEqual(seen.get("same.json"));
    });
  });
});
