// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the texts under test are such.
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { configSchema } from "../../../../core/config/define-config.js";
import { type LoadConfigOptions, loadConfig } from "../../../../core/config/load-config.js";
import { isOpenStarryError, type OpenStarryError } from "../../../../core/contracts/errors.js";

const folders: string[] = [];

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** A new folder with these files. */
function folderWith(files: Record<string, string | Buffer>): string {
  const folder = mkdtempSync(join(tmpdir(), "load-config-"));
  folders.push(folder);
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), content);
  }
  return folder;
}

/** With a user and a system that have no configs, unless the test says otherwise. */
function load(cwd: string, options: Partial<LoadConfigOptions> = {}) {
  return loadConfig({ cwd, env: { HOME: "/nonexistent" }, systemFolder: "/nonexistent", ...options });
}

async function failure(work: Promise<unknown>): Promise<OpenStarryError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!isOpenStarryError(error)) throw new Error(`no OpenStarryError: ${String(error)}`);
  return error;
}

const CONTENT = {
  agents: [
    { agent_id: "master", template_id: "MasterAgent_v1", params: { goal: "Summarise ./inbox", depth: 3 } },
    { agent_id: "second", template_id: "Worker_v1", labels: { team: "research" }, env: { MODE: "batch" } },
  ],
  templates: ["./templates", "/srv/templates"],
  defaults: { pass_env: ["ANTHROPIC_API_KEY", "HTTPS_PROXY?"], labels: { team: "research" } },
  on_daemon_stop: "keep",
  plugins: ["journal-memory", ["http-api", { port: 5151, allowed_hosts: ["a", "b"] }], ["tokens", false]],
};

const YAML = `# the same, with comments
agents:
  - agent_id: master
    template_id: MasterAgent_v1
    params: { goal: Summarise ./inbox, depth: 3 }
  - agent_id: second
    template_id: Worker_v1
    labels: { team: research }
    env: { MODE: batch }
templates: [./templates, /srv/templates]
defaults:
  pass_env: [ANTHROPIC_API_KEY, HTTPS_PROXY?]
  labels: { team: research }
on_daemon_stop: keep
plugins:
  - journal-memory
  - [http-api, { port: 5151, allowed_hosts: [a, b] }]
  - [tokens, false]
`;

const TS = `import { defineConfig } from "openstarry-daemon";
import { second } from "./second.js";
enum Team { Research = "research" }
const goal: string = "Summarise ./inbox";
export default defineConfig({
  ...${JSON.stringify({ ...CONTENT, agents: [] })} as object,
  agents: [
    { agent_id: "master", template_id: "MasterAgent_v1", params: { goal, depth: 3 } },
    { ...second, labels: { team: Team.Research } },
  ],
});
`;
const SECOND = `export const second = { agent_id: "second", template_id: "Worker_v1", env: { MODE: "batch" } };`;
const PLAIN = JSON.stringify(CONTENT);

const FORMATS: Record<string, Record<string, string>> = {
  "openstarry.config.ts": { "openstarry.config.ts": TS, "second.ts": SECOND },
  "openstarry.config.mts": { "openstarry.config.mts": TS, "second.ts": SECOND },
  "openstarry.config.js": {
    "openstarry.config.js": `import { defineConfig } from "openstarry-daemon";\nexport default defineConfig(${PLAIN});`,
  },
  "openstarry.config.mjs": { "openstarry.config.mjs": `export default await Promise.resolve(${PLAIN});` },
  "openstarry.config.cjs": { "openstarry.config.cjs": `module.exports = ${PLAIN};` },
  "openstarry.config.json": { "openstarry.config.json": JSON.stringify(CONTENT, undefined, "\t") },
  "openstarry.config.yaml": { "openstarry.config.yaml": YAML },
  "openstarry.config.yml": { "openstarry.config.yml": YAML },
  ".openstarryrc": { ".openstarryrc": YAML },
  ".openstarryrc.json": { ".openstarryrc.json": PLAIN },
  ".openstarryrc.ts": { ".openstarryrc.ts": TS, "second.ts": SECOND },
  "package.json": { "package.json": JSON.stringify({ name: "x", openstarry: CONTENT }) },
};

describe("formats", () => {
  it.each(Object.keys(FORMATS))("%s gives the same config", async (name) => {
    const folder = folderWith(FORMATS[name] ?? {});
    const loaded = await load(folder);
    expect(loaded.file).toBe(join(folder, name));
    expect(loaded.folder).toBe(folder);
    const expected = configSchema.parse(CONTENT);
    expect(loaded.config).toEqual({ ...expected, templates: [join(folder, "templates"), "/srv/templates"] });
  });

  it("reads JSON in a file without an extension", async () => {
    const { config } = await load(folderWith({ ".openstarryrc": '{\n\t"on_daemon_stop": "keep"\n}' }));
    expect(config.on_daemon_stop).toBe("keep");
  });

  it.each([
    ["openstarry.config.yaml", ""],
    ["openstarry.config.yaml", "# nothing yet\n"],
    ["openstarry.config.json", "{}"],
    ["openstarry.config.ts", "export default {};"],
  ])("takes %s with %j as the empty config", async (name, content) => {
    const folder = folderWith({ [name]: content });
    expect(await load(folder)).toEqual({ config: configSchema.parse({}), file: join(folder, name), folder });
  });

  it("is the empty config without a file", async () => {
    const folder = folderWith({});
    expect(await load(folder)).toEqual({ config: configSchema.parse({}), folder });
  });

  it("reads a changed TypeScript config anew, and what it imports", async () => {
    const files = {
      "openstarry.config.ts": 'import { mode } from "./mode.js";\nexport default { on_daemon_stop: mode };',
    };
    const folder = folderWith({ ...files, "mode.ts": 'export const mode = "keep";' });
    expect((await load(folder)).config.on_daemon_stop).toBe("keep");
    writeFileSync(join(folder, "mode.ts"), 'export const mode = "stop";');
    expect((await load(folder)).config.on_daemon_stop).toBe("stop");
  });

  it("gives a TypeScript config the plugins of the running daemon", async () => {
    const source = `import restart from "openstarry-daemon/plugins/restart-policy";
export default { plugins: [restart({ jitter: "none" })] };`;
    const { config } = await load(folderWith({ "openstarry.config.ts": source }));
    expect(config.plugins[0]).toMatchObject({
      definition: { name: "restart-policy-intensity" },
      options: { jitter: "none" },
    });
  });
});

describe("search", () => {
  const keep = "on_daemon_stop: keep\n";

  it("looks in the current folder, the user's and the system's, in this order", async () => {
    const cwd = folderWith({ "openstarry.config.yaml": keep });
    const user = folderWith({ "openstarry/openstarry.config.yaml": keep });
    const system = folderWith({ "openstarry.config.yaml": keep });
    const places = { env: { XDG_CONFIG_HOME: user }, systemFolder: system };
    expect((await load(cwd, places)).folder).toBe(cwd);
    rmSync(join(cwd, "openstarry.config.yaml"));
    expect((await load(cwd, places)).folder).toBe(join(user, "openstarry"));
    rmSync(join(user, "openstarry"), { recursive: true });
    expect((await load(cwd, places)).folder).toBe(system);
  });

  it("takes ~/.config without XDG_CONFIG_HOME, and ignores a relative one", async () => {
    const home = folderWith({ ".config/openstarry/openstarry.config.yaml": keep });
    const cwd = folderWith({ "openstarry/openstarry.config.yaml": keep });
    for (const env of [{ HOME: home }, { HOME: home, XDG_CONFIG_HOME: "." }]) {
      expect((await load(cwd, { env })).folder).toBe(join(home, ".config/openstarry"));
    }
  });

  it("never looks in a parent folder", async () => {
    const folder = folderWith({
      "openstarry.config.yaml": keep,
      "package.json": '{"openstarry":{}}',
      "sub/x": "",
    });
    expect((await load(join(folder, "sub"))).file).toBeUndefined();
  });

  it("neither reads nor runs the files in which cosmiconfig looks for a config of its own", async () => {
    const trap = 'require("node:fs").writeFileSync(__dirname + "/../ran", ""); module.exports = {};';
    const folder = folderWith({
      ".config/config.js": trap,
      ".config/config.cjs": trap,
      "elsewhere.yaml": keep,
      "package.json": JSON.stringify({ cosmiconfig: { searchPlaces: ["elsewhere.yaml"] } }),
    });
    // In a process of its own, since its current folder counts.
    const script = `const { loadConfig } = await import(${JSON.stringify(join(import.meta.dirname, "../../../../core/config/load-config.ts"))});
const found = await loadConfig({ cwd: process.cwd(), env: { HOME: "/nonexistent" }, systemFolder: "/nonexistent" });
console.log(JSON.stringify(found.file ?? "none"), require("node:fs").existsSync("ran"));`;
    const run = `const { createJiti } = require(${JSON.stringify(require.resolve("jiti"))});
createJiti(__filename, { fsCache: false }).evalModule(${JSON.stringify(script)}, { filename: __filename + ".mts", async: true, forceTranspile: true });`;
    writeFileSync(join(folder, "run.cjs"), run);
    expect(execFileSync(process.execPath, ["run.cjs"], { cwd: folder, encoding: "utf8" })).toBe(
      '"none" false\n',
    );
  });

  it("takes the named file and searches nowhere else", async () => {
    const folder = folderWith({ "openstarry.config.yaml": keep, "other.json": '{"on_daemon_stop":"stop"}' });
    const loaded = await load(folder, { configFile: "other.json" });
    expect(loaded.config.on_daemon_stop).toBe("stop");
    expect(loaded.file).toBe(join(folder, "other.json"));
  });

  it("ignores a package.json without the key, whatever is wrong with it", async () => {
    expect((await load(folderWith({ "package.json": "{ broken" }))).file).toBeUndefined();
  });
});

describe("variables", () => {
  const env = { HOME: "/nonexistent", GOAL: "win ${HOME}", EMPTY: "" };
  const goal = async (text: string, name = "openstarry.config.yaml") => {
    const config = { agents: [{ agent_id: "a", template_id: "T", params: { goal: text } }] };
    const folder = folderWith({ [name]: JSON.stringify(config, undefined, 1) });
    return (await load(folder, { env })).config.agents[0]?.params["goal"];
  };

  it.each([
    ["to ${GOAL}!", "to win ${HOME}!"],
    ["${NOPE:-by default}", "by default"],
    ["${EMPTY:-by default}", "by default"],
    ["[${EMPTY}]", "[]"],
    ["${NOPE:-}", ""],
    ["$${GOAL} $GOAL {GOAL} $", "${GOAL} $GOAL {GOAL} $"],
  ])("%j becomes %j", async (text, expected) => {
    expect(await goal(text)).toBe(expected);
    expect(await goal(text, "openstarry.config.json")).toBe(expected);
  });

  it("refuses what is not set, naming file, line and field, and no value", async () => {
    const error = await failure(goal("${GOAL} ${NOT_SET}"));
    expect(error.code).toBe("config_invalid");
    expect(error.message).toMatch(
      /openstarry\.config\.yaml: line \d+: agents\[0\]\.params\.goal needs the variable NOT_SET/,
    );
    expect(error.message).not.toContain("win");
    expect(error.hint).toBe("set NOT_SET, or give a default with ${NOT_SET:-default}");
  });

  it.each(["${env:TOKEN}", "${constructor.constructor('x')()}", "${A:-${B}}", "${}", "${A"])(
    "refuses %j",
    async (text) => {
      const error = await failure(goal(text));
      expect(error.message).toContain("neither ${NAME} nor ${NAME:-default}");
      expect(error.hint).toContain("$${");
    },
  );

  it("expands in the options of plugins, and neither keys nor the rest of a package.json", async () => {
    const content = {
      scripts: { x: "echo ${NOT_SET}" },
      openstarry: { plugins: [["p", { "${GOAL}": "${GOAL}" }]] },
    };
    const { config } = await load(folderWith({ "package.json": JSON.stringify(content) }), { env });
    expect(config.plugins).toEqual([["p", { "${GOAL}": "win ${HOME}" }]]);
  });

  it("leaves a TypeScript config alone", async () => {
    const source =
      'export default { agents: [{ agent_id: "a", template_id: "T", params: { goal: "${NOT_SET}" } }] };';
    const { config } = await load(folderWith({ "openstarry.config.ts": source }));
    expect(config.agents[0]?.params["goal"]).toBe("${NOT_SET}");
  });
});

describe("what is refused", () => {
  const tenfold = (name: string, of: string) => `${name}: &${name} [${Array(10).fill(of).join(", ")}]\n`;
  const bomb =
    tenfold("a", "x") +
    "bcdefghi"
      .split("")
      .map((name, index) => tenfold(name, `*${"abcdefgh"[index]}`))
      .join("");
  const agent = "agents:\n  - agent_id: a\n    template_id: T\n";

  it.each<[string, string, string | Buffer, RegExp]>([
    ["an alias bomb", "yaml", bomb, /line \d+, column \d+: more than 50000 values/],
    ["a cycle of anchors", "yaml", "agents: &a [*a]\n", /line 1, column 13: agents\[0\] contains itself/],
    [
      "a duplicate key in YAML",
      "yaml",
      "agents: []\nplugins: []\nagents: []\n",
      /line 3, column 1: duplicate key "agents"/,
    ],
    [
      "a duplicate key in JSON",
      "json",
      '{\n "agents": [],\n "agents": []\n}',
      /line 3, column 2: duplicate key "agents"/,
    ],
    ["tabs", "yaml", "defaults:\n\tlabels: {}\n", /line 2, column 1: Tabs are not allowed/],
    ["a byte order mark", "yaml", "\ufeffagents: []\n", /byte order mark/],
    ["a byte order mark in JSON", "json", "\ufeff{}", /byte order mark/],
    ["UTF-16", "yaml", Buffer.from("\ufeffagents: []", "utf16le"), /byte order mark/],
    ["what is not UTF-8", "yaml", Buffer.from([0x61, 0x3a, 0x20, 0xff]), /not UTF-8/],
    [
      "__proto__",
      "yaml",
      "__proto__: { agents: [] }\n",
      /line 1, column 1: __proto__ is not allowed as a key/,
    ],
    [
      "__proto__ further in",
      "json",
      '{"defaults":\n{"labels":{"__proto__":{"a":"b"}}}}',
      /line 2, column 12: defaults\.labels\.__proto__/,
    ],
    ["deep nesting", "yaml", "[".repeat(50_000), /nested more than 100 deep/],
    [
      "nesting below the parser's own limit",
      "yaml",
      `a: ${"[".repeat(150)}${"]".repeat(150)}`,
      /nested more than 100 deep/,
    ],
    ["deep nesting in JSON", "json", "[".repeat(50_000), /nested more than 100 deep/],
    [
      "many keys",
      "yaml",
      Array.from({ length: 55_000 }, (_, index) => `k${index}:`).join("\n"),
      /more than 50000 values/,
    ],
    ["many values", "json", `[${"1,".repeat(60_000)}1]`, /more than 50000 values/],
    ["a YAML syntax error", "yaml", "agents: [\nplugins: []\n", /line 2, column 1: /],
    ["a JSON syntax error", "json", '{\n  "agents": [],\n}', /line 3, column 1: trailing comma before "}"/],
    ["a cut-off JSON file", "json", '{"agents": [', /line 1, column 13: Unexpected end of JSON input/],
    ["a tag", "yaml", "agents: !!js/function 'x'\n", /line 1, column 9: Unresolved tag/],
    ["a merge key", "yaml", "defaults:\n  <<: {}\n", /line 2, column 3: merge keys/],
    [
      "placeholders without quotes",
      "yaml",
      `${agent}    params: { goal: {{x}} }\n`,
      /line 4, column 22: agents\[0\]\.params\.goal: a key must be text/,
    ],
    ["no object", "yaml", "- agents\n", /expected object, received array/],
    [
      "an unknown key",
      "yaml",
      "agents: []\nplugin: []\n",
      /line 2: unknown key "plugin" \(did you mean "plugins"\?\)/,
    ],
    [
      "an unknown key further in",
      "yaml",
      `${agent}    parms: {}\n`,
      /line 4: unknown key "agents\[0\]\.parms" \(did you mean "params"\?\)/,
    ],
    [
      "a wrong type",
      "yaml",
      `${agent}    labels: { team: 3 }\n`,
      /line 4: agents\[0\]\.labels\.team: expected string, received number; put it in quotes/,
    ],
    [
      "a missing field",
      "json",
      '{"agents":\n[{"agent_id":"a"}]}',
      /line 2: agents\[0\]\.template_id: it is missing; expected string/,
    ],
    [
      "a wrong value",
      "json",
      '{"on_daemon_stop":"wait"}',
      /line 1: on_daemon_stop: expected "stop" or "keep"/,
    ],
    [
      "a bad id",
      "json",
      '{"agents":[{"agent_id":"../a","template_id":"T"}]}',
      /agents\[0\]\.agent_id: expected 1 to 63/,
    ],
    [
      "duplicate ids",
      "yaml",
      `${agent}  - agent_id: a\n    template_id: U\n`,
      /agents\[0\] and agents\[1\] have the same agent_id "a"/,
    ],
    ["imports", "yaml", "$import: ./other.yaml\n", /unknown key "\$import"/],
  ])("%s", async (_what, extension, content, message) => {
    const folder = folderWith({ [`openstarry.config.${extension}`]: content, "other.yaml": "agents: []\n" });
    const start = performance.now();
    const error = await failure(load(folder));
    expect(performance.now() - start).toBeLessThan(10_000);
    expect(error.code).toBe("config_invalid");
    expect(error.message).toContain(join(folder, `openstarry.config.${extension}`));
    expect(error.message).toMatch(message);
    expect(({} as { agents?: unknown }).agents).toBeUndefined();
  });

  it("a file of 100 MB, unread", async () => {
    const folder = folderWith({ "openstarry.config.yaml": "" });
    truncateSync(join(folder, "openstarry.config.yaml"), 100 * 2 ** 20);
    const start = performance.now();
    const error = await failure(load(folder));
    expect(performance.now() - start).toBeLessThan(10_000);
    expect(error.message).toContain("it has 104857600 bytes, and at most 1048576 are read");
  });

  it("what is no regular file, without waiting for it", async () => {
    const folder = folderWith({});
    execFileSync("mkfifo", [join(folder, "openstarry.config.yaml")]);
    expect((await failure(load(folder))).message).toContain("it is not a regular file");
    expect((await failure(load(folder, { configFile: "." }))).message).toContain("it is not a regular file");
  });

  it("a file that is not there, and one of another format", async () => {
    const folder = folderWith({ "config.toml": "" });
    const missing = await failure(load(folder, { configFile: "nope.yaml" }));
    expect(missing.code).toBe("config_not_found");
    expect(missing.message).toContain(join(folder, "nope.yaml"));
    const format = await failure(load(folder, { configFile: "config.toml" }));
    expect(format.message).toContain('".toml" is no format that is read');
    expect(format.hint).toContain(".yaml");
  });

  it.each([
    ["export default {\n  agents: [\n};\n", /openstarry\.config\.ts: line 3: Unexpected token/],
    ["export const agents = [];", /it has no default export/],
    ["export default () => ({});", /default export is a function, not an object/],
    [
      "const settings: any = undefined;\nexport default { agents: settings.agents };",
      /line 2: TypeError: Cannot read/,
    ],
    ["throw new Error('not today');", /line 1: not today/],
    ['import x from "./nope";\nexport default x;', /Cannot find module '\.\/nope'/],
    ['export default { on_daemon_stop: "wait" };', /on_daemon_stop: expected "stop" or "keep"/],
    ["export default { $import: './other.yaml' };", /unknown key "\$import"/],
  ])("TypeScript: %j", async (source, message) => {
    const folder = folderWith({ "openstarry.config.ts": source });
    const error = await failure(load(folder));
    expect(error.code).toBe("config_invalid");
    expect(error.message).toContain(join(folder, "openstarry.config.ts"));
    expect(error.message).toMatch(message);
  });

  it("a named package.json without the key", async () => {
    const folder = folderWith({ "package.json": "{}" });
    expect((await failure(load(folder, { configFile: "package.json" }))).message).toContain(
      'no key "openstarry"',
    );
  });
});

describe("as root", () => {
  const SOURCE = "export default (() => { globalThis.ranAsRoot = true; return {}; })();";
  const isRoot = process.getuid?.() === 0;

  /** Files of root where the tests run as root; elsewhere they belong to another user anyway. */
  it.each(["ts", "json", "yaml"])("refuses a .%s file that another user owns", async (extension) => {
    const folder = folderWith({ [`openstarry.config.${extension}`]: extension === "ts" ? SOURCE : "{}" });
    if (isRoot) chownSync(join(folder, `openstarry.config.${extension}`), 12_345, 0);
    const error = await failure(load(folder, { asRoot: true }));
    expect(error.code).toBe("config_invalid");
    expect(error.message).toMatch(/belongs to user \d+, and the daemon runs as root/);
    expect(globalThis).not.toHaveProperty("ranAsRoot");
  });

  it.runIf(isRoot)("refuses what others may write, the folder too, also behind a link", async () => {
    const folder = folderWith({ "openstarry.config.ts": SOURCE });
    const file = join(folder, "openstarry.config.ts");
    expect((await load(folder, { asRoot: true })).file).toBe(file);
    delete (globalThis as Record<string, unknown>)["ranAsRoot"];
    const refused = async (message: RegExp, cwd = folder) => {
      const error = await failure(load(cwd, { asRoot: true }));
      expect(error.message).toMatch(message);
      expect(error.hint).toContain("chmod go-w");
      expect(globalThis).not.toHaveProperty("ranAsRoot");
    };
    chmodSync(file, 0o666);
    await refused(/it can be written by everybody/);
    chmodSync(file, 0o660);
    chownSync(file, 0, 12_345);
    await refused(/it can be written by group 12345/);
    chmodSync(file, 0o600);
    chmodSync(folder, 0o777);
    await refused(/its folder .* can be written by everybody/);
    const linking = folderWith({});
    symlinkSync(file, join(linking, "openstarry.config.ts"));
    await refused(/its folder .* can be written by everybody/, linking);
    chmodSync(folder, 0o1777);
    expect((await load(folder, { asRoot: true })).file).toBe(file);
    delete (globalThis as Record<string, unknown>)["ranAsRoot"];
  });

  it("does not mind as another user", async () => {
    const folder = folderWith({ "openstarry.config.json": "{}" });
    chmodSync(join(folder, "openstarry.config.json"), 0o666);
    expect((await load(folder, { asRoot: false })).file).toBe(join(folder, "openstarry.config.json"));
  });
});
