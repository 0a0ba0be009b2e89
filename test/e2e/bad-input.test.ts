import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { lockHolder } from "../../bin/daemon/lock.js";
import { fixtureAgent } from "../helpers/agents.js";
import { runCli, startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { operatorOf } from "../helpers/operator.js";
import { processesOf, processesOfAgent } from "../helpers/processes.js";

const Sleeper = { template_id: "Sleeper", ...fixtureAgent("sleeper.sh") };
const templates = {
  Sleeper,
  Misspelt: { template_id: "Misspelt", comand: "/bin/true" },
  Mistyped: { template_id: "Mistyped", command: "/bin/true", stop: { grace: 5 } },
  NoCommand: { template_id: "NoCommand", command: "/no/such/program" },
  NotInPath: { template_id: "NotInPath", command: "no-such-program-anywhere" },
  NotExecutable: { template_id: "NotExecutable", command: "./plain.txt" },
  NoInterpreter: { template_id: "NoInterpreter", command: "./script" },
  NoVariable: { template_id: "NoVariable", command: "/bin/true", pass_env: ["OPENSTARRX_NOT_SET"] },
  NoFolder: { template_id: "NoFolder", command: "/bin/true", cwd: "./nowhere" },
  NoUser: { template_id: "NoUser", command: "/bin/true", user: "no-such-user-here" },
  NoProbe: { template_id: "NoProbe", command: "/bin/true", liveness: { type: "pulse" } },
  NoSpawner: { template_id: "NoSpawner", command: "/bin/true", spawner: "podman" },
  Waiting: { ...Sleeper, template_id: "Waiting", requires: ["vault"] },
  Wanting: { ...Sleeper, template_id: "Wanting", params: { question: { type: "string" } } },
};
/** What each of them is refused for: the code, its status, the exit code, and the words that have to be said. */
const refused: [keyof typeof templates, string, number, number, RegExp][] = [
  ["Misspelt", "template_invalid", 422, 2, /Misspelt\.json.*"comand".*did you mean "command"/s],
  ["Mistyped", "template_invalid", 422, 2, /Mistyped\.json.*stop\.grace.*expected.*received number/s],
  ["NoCommand", "command_not_found", 422, 5, /command of template NoCommand.*\/no\/such\/program/],
  ["NotInPath", "command_not_found", 422, 5, /command of template NotInPath.*no-such-program-anywhere/],
  ["NotExecutable", "command_not_executable", 422, 5, /NotExecutable.*plain\.txt.*execute permission/],
  ["NoInterpreter", "command_not_executable", 422, 5, /NoInterpreter.*\/script.*\/no\/such\/interpreter/],
  ["NoVariable", "env_missing", 422, 5, /pass_env.*OPENSTARRX_NOT_SET.*NoVariable/],
  ["NoFolder", "cwd_invalid", 422, 5, /cwd of template NoFolder.*nowhere/],
  ["NoUser", "user_invalid", 422, 5, /user.*no-such-user-here/],
  ["NoProbe", "template_invalid", 422, 2, /NoProbe.*liveness.*pulse/],
  ["NoSpawner", "spawner_not_found", 422, 5, /spawner.*podman/],
  ["Waiting", "template_invalid", 422, 2, /Waiting.*requires.*vault/],
  ["Wanting", "params_invalid", 422, 2, /Wanting.*question/],
];

function writeTemplates(folder: string): void {
  mkdirSync(folder, { recursive: true });
  for (const [name, template] of Object.entries(templates))
    writeFileSync(join(folder, `${name}.json`), JSON.stringify(template));
  writeFileSync(join(folder, "plain.txt"), "just text");
  writeFileSync(join(folder, "script"), "#!/no/such/interpreter\n");
  chmodSync(join(folder, "script"), 0o755);
}

describe("start", () => {
  let dir: string;
  let home: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "openstarry-bad-"));
    home = join(dir, "home");
    writeTemplates(join(dir, "templates"));
  });
  afterAll(async () => {
    await runCli(["stop", "--home", home]);
    rmSync(dir, { recursive: true, force: true });
  });

  /** A start that has to fail, and to leave nothing: answers its exit code and what it said. */
  async function refusal(...args: string[]): Promise<[number, string]> {
    const { code, stdout, stderr } = await runCli(["start", "--home", home, ...args], { cwd: dir });
    expect([stdout, stderr]).toEqual(["", expect.stringMatching(/^error: /)]);
    expect(processesOf(home)).toEqual([]);
    expect(lockHolder(home)).toBeUndefined();
    for (const name of ["daemon.json", "daemon.sock"]) expect(existsSync(join(home, name))).toBe(false);
    return [code, stderr];
  }

  async function refusedConfig(name: string, content: string | object): Promise<[number, string]> {
    const file = join(dir, name);
    writeFileSync(file, typeof content === "string" ? content : JSON.stringify(content));
    const [code, stderr] = await refusal("--port", "0", "--config", file);
    expect(stderr).toContain(`error: config ${file}: `);
    return [code, stderr];
  }

  test.each([
    ["c.json", '{ "agents": [ }', /line 1/],
    ["c.json", '{\n  "agnts": [] }', /line 2: unknown key "agnts" \(did you mean "agents"\?\)/],
    ["c.json", '{ "on_daemon_stop": "kill" }', /on_daemon_stop: .*"stop".*"keep"/],
    ["c.yaml", "agents: [\n - : x", /line 2/],
    ["c.yaml", "templates: []\nagnts: []", /line 2: unknown key "agnts"/],
    ["c.yaml", "agents: 7", /line 1: agents: expected array, received number/],
    ["c.ts", "export default {\n  agents: [ }", /line 2/],
    ["c.ts", "export default { agnts: [] };", /unknown key "agnts"/],
    ["c.ts", 'export default { agents: [{ agent_id: "a b", template_id: "T" }] };', /agents\[0\]\.agent_id/],
    ["c.mjs", "export default { agents: 7 };", /agents: expected array, received number/],
    ["c.cjs", 'module.exports = { plugins: [["http-api", { prt: 1 }]] };', /plugins\[0\].*"prt".*"port"/],
    ["c.yml", "plugins: [no-such-plugin]", /plugins\[0\].*no-such-plugin/],
    // biome-ignore lint/suspicious/noTemplateCurlyInString: a variable of the config's own
    ["c.yml", 'templates: ["${OPENSTARRX_NOT_SET}"]', /templates\[0\].*OPENSTARRX_NOT_SET/],
  ])("refuses a %s with the content %s", async (name, content, words) => {
    expect(await refusedConfig(name, content)).toEqual([2, expect.stringMatching(words)]);
  });

  test("refuses an agent of the config that cannot be created, and creates none of the others", async () => {
    const other = { agent_id: "other", template_id: "Sleeper" };
    const some = ["Misspelt", "NoCommand", "NotExecutable", "NoVariable", "Waiting"];
    for (const [template_id, , , code, words] of refused.filter(([it]) => some.includes(it))) {
      const agents = [other, { agent_id: "master", template_id }];
      const refusal = await refusedConfig("agents.json", { templates: ["./templates"], agents });
      expect([template_id, ...refusal]).toEqual([template_id, code, expect.stringMatching(words)]);
      expect(refusal[1]).toContain("agents[1] (master): ");
    }
    const absent = { templates: ["./templates"], agents: [other, { agent_id: "m", template_id: "Sleepr" }] };
    const [code, stderr] = await refusedConfig("agents.json", absent);
    expect([code, stderr]).toEqual([
      4,
      expect.stringMatching(/agents\[1\] \(m\).*"Sleepr"[\s\S]*did you mean "Sleeper"/),
    ]);
  });

  test("names all agents that cannot be created", async () => {
    const agents = ["NoCommand", "Sleeper", "NoVariable"].map((it) => ({ agent_id: it, template_id: it }));
    const [code, stderr] = await refusedConfig("agents.json", { templates: ["./templates"], agents });
    expect(code).toBe(2);
    expect(stderr).toMatch(/agents\[0\] \(NoCommand\).*agents\[2\] \(NoVariable\)/s);
    expect(stderr).not.toContain("agents[1]");
  });

  test("refuses a port that is taken", async () => {
    const stranger = createServer().listen(0, "127.0.0.1");
    await once(stranger, "listening");
    const { port } = stranger.address() as { port: number };
    const [code, stderr] = await refusal("--port", String(port));
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(new RegExp(`port ${port} .* taken[\\s\\S]*--port`)),
    ]);
    stranger.close();
  });

  test("refuses a folder that it cannot use", async () => {
    const file = join(dir, "templates", "plain.txt");
    for (const bad of [file, join(file, "home")]) {
      const { code, stderr } = await runCli(["start", "--home", bad, "--port", "0"], { cwd: dir });
      expect([bad, code, stderr]).toEqual([
        bad,
        1,
        expect.stringContaining(`error: ${bad} cannot be used: `),
      ]);
    }
  });

  test("starts normally in the same folder after all of these", async () => {
    const config = join(dir, "good.json");
    const agents = [{ agent_id: "master", template_id: "Sleeper" }];
    // A folder of templates that cannot be read hides nobody else's.
    const folders = ["./templates", "./templates/plain.txt"];
    writeFileSync(config, JSON.stringify({ templates: folders, agents }));
    const started = await runCli(["start", "--home", home, "--port", "0", "--config", config], { cwd: dir });
    expect([started.code, started.stdout]).toEqual([0, expect.stringMatching(/master +running/)]);
    const list = JSON.parse((await runCli(["list", "--json", "--home", home])).stdout);
    expect(list.items.map(({ agent_id }: { agent_id: string }) => agent_id)).toEqual(["master"]);
    const { stdout, stderr } = await runCli(["templates", "--home", home]);
    expect(stdout).toMatch(/^Sleeper /m);
    for (const bad of ["Misspelt.json", "Mistyped.json", "plain.txt"])
      expect(stderr).toMatch(new RegExp(`invalid: .*${bad}`));
  });
});

describe("the API", () => {
  let daemon: TestDaemon;
  beforeAll(async () => {
    daemon = await startDaemon({ config: { agents: [] } });
    writeTemplates(join(daemon.project, "templates"));
  });
  afterAll(() => daemon?.stop());
  beforeEach(async () => {
    expect((await daemon.client.agents.list()).items).toEqual([]);
  });

  test.each(refused)(
    "refuses an agent of template %s with %s, and makes nothing",
    async (template_id, code, status, _, words) => {
      const operator = operatorOf(daemon.home);
      const body = { agent_id: "wanted", template_id };
      for (const path of ["/agents?dry_run=true", "/agents"]) {
        const { status: got, headers, json } = await operator.post(path, body);
        expect([got, headers["content-type"]]).toEqual([
          status,
          expect.stringContaining("application/problem+json"),
        ]);
        expect(json).toMatchObject({ code, status, title: expect.any(String) });
        expect(`${json["detail"]} ${json["hint"] ?? ""}`).toMatch(words);
      }
      expect((await operator.get("/agents/wanted")).status).toBe(404);
      expect(processesOfAgent(daemon.home, "wanted")).toEqual([]);
      expect(existsSync(join(daemon.home, "agents", "wanted"))).toBe(false);
    },
  );

  test("refuses an invalid body and says where the error is", async () => {
    const operator = operatorOf(daemon.home);
    const wrong: [object, RegExp][] = [
      [{ agent_id: "wanted", templateid: "Sleeper" }, /"templateid" \(did you mean "template_id"\?\)/],
      [{ agent_id: 7, template_id: "Sleeper" }, /agent_id: expected string, received number/],
      [{ agent_id: "../x", template_id: "Sleeper" }, /agent_id: expected 1 to 63/],
      [
        { agent_id: "wanted", template_id: "Sleeper", params: [] },
        /params: expected record|params: expected object/,
      ],
      [{ agent_id: "wanted" }, /template_id is missing/],
    ];
    for (const [body, words] of wrong) {
      const { status, json } = await operator.post("/agents", body);
      expect([body, status, json]).toEqual([body, 400, expect.objectContaining({ code: "input_invalid" })]);
      expect(json["detail"]).toMatch(words);
    }
    const { status, json } = await operator.post("/agents", { template_id: "Sleepr" });
    expect([status, json["code"], json["hint"]]).toEqual([
      ...[422, "template_not_found", expect.stringContaining('did you mean "Sleeper"')],
    ]);
  });
});
