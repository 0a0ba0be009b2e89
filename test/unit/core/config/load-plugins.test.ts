import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { type BuiltinPlugins, loadPlugins } from "../../../../core/config/load-plugins.js";
import { isOpenStarryError, type OpenStarryError } from "../../../../core/contracts/errors.js";
import { definePlugin } from "../../../../core/contracts/plugin.js";
import { orderPlugins } from "../../../../core/host/plugin-graph.js";
import { builtins as realBuiltins, renamedBuiltins } from "../../../../plugins/builtins.js";

const folders: string[] = [];

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

function folderWith(files: Record<string, string>): string {
  const folder = mkdtempSync(join(tmpdir(), "load-plugins-"));
  folders.push(folder);
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), content);
  }
  return folder;
}

function fixture(name: string) {
  const options = z.strictObject({ port: z.int().default(1), folders: z.array(z.string()).default([]) });
  return definePlugin({ name, apiVersion: 1, options, setup() {} });
}

const [alpha, beta, extra] = [fixture("alpha"), fixture("beta"), fixture("extra")];
const builtins: BuiltinPlugins = new Map([
  ["alpha", { default: true, load: async () => ({ default: alpha }) }],
  ["beta", { default: true, load: async () => ({ default: beta }), options: { folders: ["/a"] } }],
  ["extra", { default: false, load: async () => ({ default: extra }) }],
]);

function load(entries: readonly unknown[], folder = "/nonexistent", from = builtins) {
  return loadPlugins({ entries, folder, builtins: from, file: join(folder, "openstarry.config.yaml") });
}

/** What loads: name, origin, options. */
async function told(entries: readonly unknown[], folder?: string) {
  return (await load(entries, folder)).map(({ definition, origin, place, options }) => [
    definition.name,
    origin === "default" ? origin : place,
    options,
  ]);
}

async function failure(work: Promise<unknown>): Promise<OpenStarryError> {
  const error = await work.then(
    (value) => new Error(`it did not fail: ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  );
  if (!isOpenStarryError(error)) throw error;
  return error;
}

/** A copy of the package that is not the daemon's: the shape alone counts. */
const NESTED = `export function definePlugin(definition) {
  const factory = (options) => ({ definition, options: options ?? {} });
  return Object.assign(factory, { definition });
}
`;
const IMPORTED = 'import { definePlugin } from "openstarry-daemon";';
const PLUGIN = (name: string, head = NESTED.replace("export ", "")) => `${head}
const anything = { "~standard": { version: 1, vendor: "test", validate: (value) => ({ value }) } };
export default definePlugin({ name: "${name}", apiVersion: 1, options: anything, setup() {} });
`;

describe("which plugins load", () => {
  const BETA = ["beta", "default", { folders: ["/a"] }];

  it("the defaults, with the options that stand elsewhere", async () => {
    expect(await told([])).toEqual([["alpha", "default", {}], BETA]);
  });

  it("defaults first, then the listed in their order", async () => {
    expect(await told(["extra", fixture("mine")])).toEqual([
      ["alpha", "default", {}],
      BETA,
      ["extra", "plugins[0]", {}],
      ["mine", "plugins[1]", {}],
    ]);
  });

  it("a default that is configured stays one plugin", async () => {
    expect(await told([["alpha", { port: 2 }]])).toEqual([BETA, ["alpha", "plugins[0]", { port: 2 }]]);
    expect(await told(["alpha"])).toEqual([BETA, ["alpha", "plugins[0]", {}]]);
    expect(await told([alpha({ port: 3 })])).toEqual([BETA, ["alpha", "plugins[0]", { port: 3 }]]);
  });

  it("a default that is left out does not load", async () => {
    expect(
      await told([
        ["alpha", false],
        ["extra", false],
      ]),
    ).toEqual([BETA]);
  });

  it("joins lists that stand elsewhere with those of the entry, by name and by value", async () => {
    const joined = { folders: ["/a", "/b"], port: 2 };
    const options = { folders: ["/b"], port: 2 };
    expect(await told([["beta", options]])).toContainEqual(["beta", "plugins[0]", joined]);
    expect(await told([beta(options)])).toContainEqual(["beta", "plugins[0]", joined]);
  });

  it("values, called or not, also of another copy of the package", async () => {
    const mine = fixture("mine");
    const copied = { definition: { ...fixture("copied").definition }, options: { port: 4 } };
    const uncalled = Object.assign(() => copied, { definition: copied.definition });
    expect(await told([mine, mine({ port: 2 }), copied, uncalled])).toEqual([
      ["alpha", "default", {}],
      BETA,
      ["mine", "plugins[0]", {}],
      ["mine", "plugins[1]", { port: 2 }],
      ["copied", "plugins[2]", { port: 4 }],
      ["copied", "plugins[3]", {}],
    ]);
  });

  it("the daemon's own: all of them load, are valid and fit together", async () => {
    const plugins = await load([], "/nonexistent", realBuiltins);
    const defaults = [...realBuiltins].flatMap(([name, it]) => (it.default ? [name] : []));
    expect(plugins.map(({ definition }) => definition.name)).toEqual(defaults);
    expect(orderPlugins(plugins).ordered).toHaveLength(defaults.length);
  });
});

describe("a former name of a built-in plugin", () => {
  /** What loads where `old` has become `alpha` and `beta`, and what is said of it. */
  async function renamed(entries: readonly unknown[]) {
    const notices: string[] = [];
    const plugins = await loadPlugins({
      entries,
      folder: "/nonexistent",
      builtins,
      file: "c.yaml",
      renamed: new Map([["old", ["alpha", "beta"]]]),
      onNotice: (notice) => notices.push(notice),
    });
    return { notices, plugins: plugins.map(({ definition, options }) => [definition.name, options]) };
  }
  const NOTICE =
    'config c.yaml: plugins[0]: plugin "old" is called "alpha" and "beta" now; write that instead';

  it("loads the plugins that do its work now, with a notice; the first takes the options", async () => {
    const beta = ["beta", { folders: ["/a"] }];
    expect(await renamed(["old"])).toEqual({ notices: [NOTICE], plugins: [["alpha", {}], beta] });
    expect(await renamed([["old", { port: 2 }]])).toEqual({
      notices: [NOTICE],
      plugins: [["alpha", { port: 2 }], beta],
    });
  });

  it("leaves all of them out with false", async () => {
    expect(await renamed([["old", false]])).toEqual({ notices: [NOTICE], plugins: [] });
  });

  it("causes no notice under the new names", async () => {
    expect((await renamed(["alpha", ["beta", false]])).notices).toEqual([]);
  });

  it("leads to built-in plugins, and is the name of none", () => {
    for (const [old, names] of renamedBuiltins) {
      expect(realBuiltins.has(old)).toBe(false);
      expect(names.filter((name) => !realBuiltins.has(name))).toEqual([]);
    }
  });
});

describe("names", () => {
  const named = async (name: string, folder: string, options?: object) => {
    const loaded = await load([options ? [name, options] : name], folder);
    return loaded.at(-1)?.definition.name;
  };

  it.each([
    [
      "./audit.ts",
      'const typed: string = "";\nvoid typed;\nimport { definePlugin } from "openstarry-daemon";',
    ],
    ["./audit.mjs", IMPORTED],
    ["./audit.js", undefined],
    ["./sub/audit.ts", undefined],
  ])("a path from the config's folder: %s", async (name, head) => {
    expect(await named(name, folderWith({ [name]: PLUGIN("audit", head) }))).toBe("audit");
  });

  it("an absolute path, a path above, and a folder that is a package", async () => {
    const folder = folderWith({
      "plugin/package.json": '{"name":"x","type":"module","main":"lib/x.js"}',
      "plugin/lib/x.js": PLUGIN("x"),
      "config/here": "",
    });
    expect(await named(join(folder, "plugin/lib/x.js"), "/nonexistent")).toBe("x");
    expect(await named("../plugin", join(folder, "config"))).toBe("x");
  });

  it.each<[string, string, Record<string, string>]>([
    [
      "exports with conditions",
      "quiet",
      {
        "package.json": '{"type":"module","exports":{"types":"./x.d.ts","import":"./x.js"}}',
        "x.js": PLUGIN("found"),
      },
    ],
    [
      "a module of the older kind",
      "quiet",
      {
        "package.json": '{"main":"./x"}',
        "x.js": PLUGIN("found").replace("export default", "module.exports ="),
      },
    ],
    [
      "a copy of its own of the package",
      "quiet",
      {
        "package.json": '{"type":"module","main":"x.js"}',
        "x.js": PLUGIN("found", 'import { definePlugin } from "./copy.js";'),
        "copy.js": NESTED,
      },
    ],
    [
      "an export that can only be required",
      "quiet",
      {
        "package.json": '{"exports":{".":{"require":"./x.cjs"}}}',
        "x.cjs": PLUGIN("found").replace("export default", "module.exports ="),
      },
    ],
    [
      "TypeScript",
      "quiet",
      {
        "package.json": '{"type":"module","main":"x.ts"}',
        "x.ts": `${PLUGIN("found")}\nexport const typed: string = "";`,
      },
    ],
    [
      "a scope and a path within",
      "@scope/quiet/plugin",
      {
        "package.json": '{"type":"module","exports":{"./*":"./dist/*.js"}}',
        "dist/plugin.js": PLUGIN("found"),
      },
    ],
  ])("a package with %s", async (_what, name, files) => {
    const home = name.startsWith("@") ? "node_modules/@scope/quiet" : "node_modules/quiet";
    const folder = folderWith(
      Object.fromEntries(Object.entries(files).map(([file, text]) => [`${home}/${file}`, text])),
    );
    mkdirSync(join(folder, "project"));
    expect(await named(name, folder, { any: "option" })).toBe("found");
    expect(await named(name, join(folder, "project"))).toBe("found");
  });

  it("a built-in before a file or package of the same name", async () => {
    const folder = folderWith({
      "node_modules/extra/package.json": '{"main":"x.mjs"}',
      "node_modules/extra/x.mjs": PLUGIN("other"),
      extra: "",
    });
    expect(await named("extra", folder)).toBe("extra");
  });

  it("a plugin that its module exports called keeps its options, unless the entry has some", async () => {
    const folder = folderWith({
      "x.mjs": PLUGIN("x").replace("setup() {} })", 'setup() {} })({ from: "module" })'),
    });
    expect((await load(["./x.mjs"], folder)).at(-1)?.options).toEqual({ from: "module" });
    expect((await load([["./x.mjs", { from: "config" }]], folder)).at(-1)?.options).toEqual({
      from: "config",
    });
  });

  it.each([
    "node:child_process",
    "child_process",
    "fs",
    "http://example.org/x.js",
    "https:x",
    "file:///etc/passwd",
    "data:text/javascript,1",
    "foo/../../x",
    "foo/./x",
    "@scope",
    "..",
    "~/x",
    "Quiet-Hours",
    "a b",
    "x\0y",
    "__proto__",
    "constructor",
  ])("refuses %j", async (name) => {
    const error = await failure(load([name], folderWith({ "x.js": "throw new Error('it ran')" })));
    expect(error.code).toBe("plugin_not_found");
    expect(error.message).toContain("plugins[0]: ");
    expect(error.hint).toBeTruthy();
  });

  it("refuses a package whose files lie outside of it", async () => {
    const folder = folderWith({
      "out.js": "throw new Error('it ran')",
      "node_modules/a/package.json": '{"exports":"./../../out.js"}',
      "node_modules/b/package.json": '{"main":"link.js"}',
      "node_modules/c/package.json": '{"exports":{".":"./nope.js"}}',
      "node_modules/d/package.json": '{"exports":{"./x":"./x.js"}}',
      "node_modules/e/package.json": "{",
      "node_modules/f/package.json": '{"exports":{"./*":"./*.js","./internal/*":null}}',
      "node_modules/f/internal/x.js": "throw new Error('it ran')",
    });
    symlinkSync(join(folder, "out.js"), join(folder, "node_modules/b/link.js"));
    expect((await failure(load(["a"], folder))).message).toContain("lies outside of it");
    expect((await failure(load(["b"], folder))).message).toContain("lies outside of it");
    expect((await failure(load(["c"], folder))).message).toContain("there is no file ./nope.js");
    expect((await failure(load(["d"], folder))).message).toContain('exports no "."');
    expect((await failure(load(["f/internal/x"], folder))).message).toContain('exports no "./internal/x"');
    expect((await failure(load(["e"], folder))).message).toContain("not valid JSON");
  });

  it.runIf(process.getuid?.() === 0)(
    "refuses a file that others may write when the daemon is root",
    async () => {
      const folder = folderWith({ "x.mjs": PLUGIN("x") });
      chmodSync(join(folder, "x.mjs"), 0o666);
      const error = await failure(load(["./x.mjs"], folder));
      expect(error.message).toContain("it can be written by everybody, and the daemon runs as root");
    },
  );
});

describe("mistakes, and what is said of them", () => {
  const inFile = (source: string, name = "p.mjs") => load([`./${name}`], folderWith({ [name]: source }));

  it.each<[string, unknown, RegExp, string]>([
    ["a misspelt built-in", "alfa", /no.*"alfa"/, 'did you mean "alpha"?'],
    ["a mis-cased built-in", "Alpha", /"Alpha" is neither/, 'did you mean "alpha"?'],
    [
      "a misspelt one with false",
      ["bata", false],
      /no built-in plugin "bata" to leave out/,
      'did you mean "beta"?',
    ],
    [
      "a package that is not installed",
      "quiet-hours",
      /installed package "quiet-hours"/,
      "built in are alpha, beta, extra",
    ],
    ["the mapping of YAML", { alpha: { port: 1 } }, /an object with alpha/, 'write ["alpha", { … }]'],
    ["false in a mapping", { alpha: false }, /an object with alpha/, 'write ["alpha", false]'],
    [
      "name and options by key",
      { name: "alpha", options: {} },
      /an object with name, options/,
      'write ["alpha", { … }]',
    ],
    ["true for options", ["alpha", true], /a list of 2/, 'write ["alpha", { … }] or ["alpha", false]'],
    ["null for options", ["alpha", null], /a list of 2/, 'write ["alpha", { … }] or ["alpha", false]'],
    ["a list too long", ["alpha", {}, "beta"], /a list of 3/, "an entry of its own"],
    ["a plugin with options beside it", [fixture("mine"), { port: 2 }], /a list of 2/, "mine({ … })"],
    ["a number", 5050, /got 5050/, 'write "name" or ["name", { … }]'],
    ["an empty name", "", /got ""/, 'write "name"'],
    ["a promise", Promise.resolve(alpha), /got a promise/, 'list the path: "./plugin.ts"'],
    [
      "a module",
      { default: alpha, other: 1 },
      /an object with default, other/,
      "default export, not the module",
    ],
    ["a bare definition", alpha.definition, /the bare definition of "alpha"/, "definePlugin({ … })"],
    ["a plain function", () => ({}), /a function that definePlugin did not make/, "list what definePlugin"],
    ["a file without ./", "sub/audit.ts", /there is a file of this name/, 'write "./sub/audit.ts"'],
    [
      "a path without its extension",
      "./sub/audit",
      /there is no file .*\/sub\/audit/,
      'write the extension too: "./sub/audit.ts"',
    ],
    ["a missing file", "./nope.ts", /there is no file .*\/nope\.ts/, "from the config's folder"],
    ["a folder", "./sub", /neither a file nor a package/, "from the config's folder"],
  ])("%s", async (_what, entry, message, hint) => {
    const folder = folderWith({ "sub/audit.ts": PLUGIN("audit") });
    const error = await failure(load([entry], folder));
    expect(error.message).toContain(`config ${folder}/openstarry.config.yaml: plugins[0]: `);
    expect(error.message).toMatch(message);
    expect(error.hint).toContain(hint);
    expect(error.message + error.hint).not.toContain("5151");
  });

  it.each<[string, string, RegExp, string]>([
    [
      "no default export",
      "export const a = 1;",
      /p\.mjs: it has no default export/,
      "export default definePlugin",
    ],
    [
      "a plugin by name only",
      PLUGIN("x").replace("export default", "export const x ="),
      /its export "x" is a plugin/,
      "export { x as default }",
    ],
    [
      "another thing by default",
      "export default class Plugin {}",
      /a function that definePlugin did not make/,
      "export default definePlugin",
    ],
    [
      "a bare definition",
      'export default { name: "x", setup() {} };',
      /the bare definition of "x"/,
      "export default definePlugin",
    ],
    ["a syntax error", "export default definePlugin({;", /p\.mts: line 1: Unexpected token/, ""],
    ["a throw", "throw new Error('no luck');", /p\.mjs: line 1: no luck/, ""],
    [
      "another API version",
      PLUGIN("x").replace("apiVersion: 1", "apiVersion: 2"),
      /plugin x: it is made for apiVersion 2, and this daemon speaks 1/,
      "apiVersion 1",
    ],
    [
      "no API version",
      PLUGIN("x").replace("apiVersion: 1, ", ""),
      /apiVersion undefined, and this daemon speaks 1/,
      "apiVersion 1",
    ],
    [
      "no schema",
      PLUGIN("x").replace("options: anything", "options: {}"),
      /its options are no schema/,
      "z.strictObject({})",
    ],
    [
      "no slots",
      PLUGIN("x").replace("setup", 'provides: ["journal"], setup'),
      /provides is not a list of slots/,
      "defineSlot",
    ],
    ["a bad name", PLUGIN("a b"), /its name is not valid/, "letters"],
  ])("a module with %s", async (_what, source, message, hint) => {
    // What is no JavaScript is kept from the test runner, which reads such files itself.
    const name = source.includes("{;") ? "p.mts" : "p.mjs";
    const error = await failure(inFile(source, name));
    expect(error.code).toBe("plugin_invalid");
    expect(error.message).toMatch(message);
    if (hint) expect(error.hint).toContain(hint);
  });

  it("does not start a plugin of another API version", async () => {
    const source = PLUGIN("x")
      .replace("apiVersion: 1", "apiVersion: 2")
      .replace("setup() {}", "setup() { globalThis.wasSetUp = true; }");
    await failure(inFile(source));
    expect(globalThis).not.toHaveProperty("wasSetUp");
  });

  it("options that do not fit, without their values", async () => {
    const error = await failure(load([["alpha", { prot: "5151", port: "5151" }]]));
    expect(error.code).toBe("config_invalid");
    expect(error.message).toContain("options of plugin alpha: port: expected number, received string");
    expect(error.message).toContain('unknown key "prot" (did you mean "port"?)');
    expect(error.message).not.toContain("5151");
  });

  it("a schema that answers later", async () => {
    const source = PLUGIN("x").replace("({ value }) }", "Promise.resolve({ value }) }");
    expect((await failure(inFile(source))).message).toContain("is asynchronous");
  });

  it("left out and listed", async () => {
    const error = await failure(load(["alpha", ["alpha", false]]));
    expect(error.message).toContain('plugins[1]: "alpha" is left out here and listed in plugins[0]');
  });

  it("all of them in one error, each with its place", async () => {
    const error = await failure(load(["alfa", ["beta", { port: "x" }], 7, fixture("fine"), "./nope.ts"]));
    expect(error.code).toBe("config_invalid");
    for (const place of ["plugins[0]: ", "plugins[1]: ", "plugins[2]: ", "plugins[4]: "]) {
      expect(error.message).toContain(place);
    }
    expect(error.message).not.toContain("plugins[3]");
    expect(error.data["problems"]).toHaveLength(4);
  });
});
