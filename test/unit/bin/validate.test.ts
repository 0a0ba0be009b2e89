import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { validateConfig } from "../../../bin/commands/validate.js";
import { builtins, renamedBuiltins } from "../../../plugins/builtins.js";

const folders: string[] = [];

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** A project with these files, and a home of its own. */
function projectWith(files: Record<string, string>): { cwd: string; home: string } {
  const cwd = mkdtempSync(join(tmpdir(), "validate-"));
  folders.push(cwd);
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(cwd, name)), { recursive: true });
    writeFileSync(join(cwd, name), content);
  }
  return { cwd, home: join(cwd, "home") };
}

function validate(files: Record<string, string>, configFile?: string) {
  const project = projectWith(files);
  const env = { HOME: "/nonexistent", XDG_CONFIG_HOME: "/nonexistent" };
  return validateConfig({
    ...project,
    env,
    builtins,
    renamed: renamedBuiltins,
    ...(configFile === undefined ? {} : { configFile }),
  });
}

const CONFIG = `agents:
  - { agent_id: master, template_id: Master_v1, params: { goal: win } }
templates: [./templates]
`;
const MASTER = `template_id: Master_v1
command: node
params: { goal: { type: string } }
readiness: { type: heartbeat }
`;
const GOOD = { "openstarry.config.yaml": CONFIG, "templates/master.yaml": MASTER };

describe("validateConfig", () => {
  it("reports no problem of a valid project, and lists what it contains", async () => {
    const report = await validate({
      ...GOOD,
      "home/templates/own.yaml": "template_id: Own\ncommand: node\n",
    });
    expect(report.problems).toEqual([]);
    expect(report.file).toMatch(/\/openstarry\.config\.yaml$/);
    expect(report.agents).toEqual(["master"]);
    expect(report.templates).toEqual(["Own", "Master_v1"]);
    const defaults = [...builtins].flatMap(([name, it]) => (it.default ? [name] : []));
    expect([...report.plugins].sort()).toEqual([...defaults].sort());
  });

  it("accepts a folder without a config", async () => {
    const report = await validate({});
    expect(report).toMatchObject({ agents: [], templates: [], problems: [] });
    expect(report.file).toBeUndefined();
  });

  it.each<[string, Record<string, string>, RegExp[]]>([
    [
      "an invalid config",
      { "openstarry.config.yaml": "agent: []\n" },
      [/line 1: unknown key "agent" \(did you mean "agents"\?\)/],
    ],
    [
      "an unset variable",
      { "openstarry.config.yaml": `${CONFIG}defaults: { labels: { a: "\${NOT_SET}" } }\n` },
      [/NOT_SET/],
    ],
    [
      "a missing folder",
      { "openstarry.config.yaml": CONFIG.replace("./templates", "./templates, ./more") },
      [/templates: no such folder: .*\/more$/],
    ],
    [
      "an invalid template",
      { "templates/x.yaml": "template_id: X\ncomand: x\n" },
      [/template X \(.*x\.yaml\): command: it is missing.*unknown key "comand"/],
    ],
    [
      "an unknown probe",
      { "templates/x.yaml": `${MASTER.replace("Master_v1", "X").replace("heartbeat", "heartbeet")}` },
      [/there is no readiness probe of type "heartbeet" \(known: pid, heartbeat/],
    ],
    [
      "an unknown spawner",
      { "templates/x.yaml": "template_id: X\ncommand: node\nspawner: docker\n" },
      [/x\.yaml: there is no spawner "docker" \(known: process\)/],
    ],
    [
      "an agent without a template",
      { "openstarry.config.yaml": CONFIG.replace("Master_v1", "Mastr_v1") },
      [/agents\[0\] \(master\): there is no valid template "Mastr_v1" \(did you mean "Master_v1"\?\)/],
    ],
    [
      "wrong parameters of an agent",
      { "openstarry.config.yaml": CONFIG.replace("goal: win", "gaol: win") },
      [
        /agents\[0\] \(master\): params of Master_v1: goal: it is missing.*unknown key "gaol" \(did you mean "goal"\?\)/,
      ],
    ],
    [
      "wrong options of a plugin, and other errors too",
      {
        "openstarry.config.yaml": `${CONFIG}plugins: [[http-api, { port: x }]]\n`,
        "templates/x.yaml": "nope: 1\n",
      },
      [/plugins\[0\]: options of plugin http-api: port: expected number/, /x\.yaml: template_id is missing/],
    ],
    [
      "conflicting plugins",
      { "openstarry.config.yaml": `${CONFIG}plugins: [[journal-sqlite, {}], journal-memory]\n` },
      [/journal-sqlite \(plugins\[0\]\) and journal-memory \(plugins\[1\]\) both provide journal/],
    ],
    [
      "a required slot without a provider",
      { "openstarry.config.yaml": `${CONFIG}plugins: [[restart-policy-intensity, false]]\n` },
      [/required slot restartPolicy has no provider/],
    ],
  ])("reports %s", async (_what, files, messages) => {
    const { problems } = await validate({ ...GOOD, ...files });
    expect(problems).toHaveLength(messages.length);
    for (const [index, message] of messages.entries()) expect(problems[index]).toMatch(message);
  });

  it("reports all problems at once", async () => {
    const { problems, plugins } = await validate({
      ...GOOD,
      "openstarry.config.yaml": `${CONFIG.replace("goal: win", "goal: 3")}plugins: [nope-nope-nope, http-ap]\n`,
      "templates/a.yaml": "a: [",
    });
    expect(problems).toHaveLength(3);
    expect(problems[0]).toMatch(/plugins\[0\].*plugins\[1\]: .*did you mean "http-api"/);
    expect(problems[1]).toMatch(/a\.yaml: line/);
    expect(problems[2]).toMatch(/goal: expected string, received number/);
    expect(plugins).toEqual([]);
  });

  it("reads the config file that is given", async () => {
    const report = await validate(
      { "other.json": '{"agents":[{"agent_id":"a","template_id":"T"}]}' },
      "other.json",
    );
    expect(report.agents).toEqual(["a"]);
    expect((await validate({}, "nope.json")).problems[0]).toContain("there is no such file");
  });
});
