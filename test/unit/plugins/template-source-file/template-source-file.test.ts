import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import {
  isOpenStarryError,
  type OpenStarryError,
  type TemplateSource,
  templateSource,
} from "../../../../core/index.js";
import templatesFile from "../../../../plugins/template-source-file/index.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";
import { createPluginHost, type PluginHost } from "../../../helpers/plugin-host.js";
import { waitFor } from "../../../helpers/wait-for.js";

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "templates-file-"));
  cleanups.push(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

interface Setup {
  home: string;
  /** `$home/templates`. */
  own: string;
  /** Another folder, configured. */
  shared: string;
  host: PluginHost;
  source: Required<TemplateSource>;
  clock: ReturnType<typeof createFakeClock>;
  logged(message: string): Record<string, unknown>[];
}

/** Started, with these files in the second folder. */
async function setUp(files: Record<string, string> = {}, folders?: readonly string[]): Promise<Setup> {
  const [home, shared] = [newFolder(), newFolder()];
  for (const [name, content] of Object.entries(files)) writeFileSync(join(shared, name), content);
  const clock = createFakeClock();
  const plugins = [templatesFile({ folders: [...(folders ?? [shared])] })];
  const host = createPluginHost({ plugins, home, clock });
  cleanups.push(() => host.stop());
  await host.start();
  const [source] = host.use(templateSource);
  return {
    home,
    own: join(home, "templates"),
    shared,
    host,
    source: source as Required<TemplateSource>,
    clock,
    logged: (message) => host.log.filter((line) => line.message === message).map(({ fields }) => fields),
  };
}

const yaml = (id: string, command = "run") => `template_id: ${id}\ncommand: ${command}\n`;

async function failure(work: Promise<unknown>): Promise<OpenStarryError> {
  const error = await work.then(
    () => new Error("it did not fail"),
    (reason: unknown) => reason,
  );
  if (!isOpenStarryError(error)) throw error;
  return error;
}

const ids = async (source: TemplateSource) =>
  (await source.list()).documents.map(({ template_id }) => template_id);

describe("reading", () => {
  it("finds YAML, JSON and code, one document a file", async () => {
    const { source, shared } = await setUp({
      "a.yaml": yaml("A"),
      "b.yml": yaml("B"),
      "c.json": '{ "template_id": "C", "command": "run" }',
      "d.ts": 'const id: string = "D";\nexport default { template_id: id, command: "run" };',
      "e.mjs": 'export default { template_id: "E", command: "run" };',
      ".hidden.yaml": yaml("Hidden"),
      "types.d.ts": "export {};",
      "notes.md": "# notes",
    });
    mkdirSync(join(shared, "folder.yaml"));
    expect(await ids(source)).toEqual(["A", "B", "C", "D", "E"]);
    expect((await source.list()).invalid).toEqual([]);
    expect(await source.get("C")).toEqual({
      template_id: "C",
      revision: expect.stringMatching(/^[0-9a-f]{12}$/),
      document: { template_id: "C", command: "run" },
      origin: join(shared, "c.json"),
      baseDir: shared,
    });
    expect(await source.get("Hidden")).toBeUndefined();
  });

  it("makes its own folder, for the daemon's user alone", async () => {
    const { own } = await setUp();
    expect(statSync(own).mode & 0o777).toBe(0o700);
  });

  it("has a revision that is the content's", async () => {
    const { source, shared } = await setUp({ "a.yaml": yaml("A") });
    const first = (await source.get("A"))?.revision;
    writeFileSync(join(shared, "a.yaml"), yaml("A"));
    expect((await source.get("A"))?.revision).toBe(first);
    writeFileSync(join(shared, "a.yaml"), `${yaml("A")}# more\n`);
    expect((await source.get("A"))?.revision).not.toBe(first);
  });

  it("sees an edit, a new file and a removed one at the next use", async () => {
    const { source, shared } = await setUp({ "a.yaml": yaml("A", "one") });
    const command = async () =>
      ((await source.get("A"))?.document as { command: string } | undefined)?.command;
    expect(await command()).toBe("one");
    writeFileSync(join(shared, "a.yaml"), yaml("A", "two"));
    expect(await command()).toBe("two");
    writeFileSync(join(shared, "b.yaml"), yaml("B"));
    expect(await ids(source)).toEqual(["A", "B"]);
    unlinkSync(join(shared, "a.yaml"));
    expect(await command()).toBeUndefined();
    expect(await ids(source)).toEqual(["B"]);
  });

  it("takes up a folder that appears later", async () => {
    const later = join(newFolder(), "later");
    const { source, logged } = await setUp({}, [later]);
    expect(logged("this folder of templates is not there yet")).toEqual([{ folder: later }]);
    mkdirSync(later);
    writeFileSync(join(later, "a.yaml"), yaml("A"));
    expect(await source.get("A")).toMatchObject({ template_id: "A" });
  });

  it("gives everybody who asks at once the same, and what was written before they asked", async () => {
    const { source, shared } = await setUp({ "a.yaml": yaml("A", "run0") });
    for (let round = 1; round <= 20; round++) {
      const running = source.list();
      writeFileSync(join(shared, "a.yaml"), yaml("A", `run${round}`));
      const [, found] = await Promise.all([running, source.get("A"), source.list()]);
      expect(found?.document).toMatchObject({ command: `run${round}` });
    }
  });
});

describe("what is not valid", () => {
  it("is listed with file, line, field and reason, and hides nothing", async () => {
    const { source, shared, logged } = await setUp({
      "bad-syntax.yaml": "template_id: S\ncommand: [\n",
      "bad-key.yaml": `${yaml("K")}comand: x\n`,
      "bad-code.ts": "export const nothing = 1;",
      "bad-cycle.mjs": "const a = { template_id: 'X' }; a.self = a; export default a;",
      "no-id.yaml": "command: run\n",
      "no-object.json": "[]",
      "large.yaml": "#".repeat(300_000),
      "good.yaml": yaml("Good"),
    });
    execFileSync("mkfifo", [join(shared, "fifo.yaml")]);
    const { documents, invalid } = await source.list();
    expect(documents.map(({ template_id }) => template_id)).toEqual(["Good"]);
    const told = Object.fromEntries(
      invalid.map(({ origin, error }) => [origin.slice(shared.length + 1), error]),
    );
    expect(told).toEqual({
      "bad-syntax.yaml": expect.stringMatching(/bad-syntax\.yaml: line 3, column 1: /),
      "bad-key.yaml": expect.stringMatching(
        /template K \(.*bad-key\.yaml\): unknown key "comand" \(did you mean "command"\?\)/,
      ),
      "bad-code.ts": expect.stringMatching(/bad-code\.ts: it has no default export \(.*export default/),
      "bad-cycle.mjs": expect.stringMatching(/bad-cycle\.mjs: it cannot be read \(.*circular/),
      "no-id.yaml": expect.stringMatching(/no-id\.yaml: template_id is missing/),
      "no-object.json": expect.stringMatching(/no-object\.json: template_id is missing/),
      "large.yaml": expect.stringMatching(/it has 300000 bytes, and at most 262144 are read/),
      "fifo.yaml": expect.stringMatching(/it is not a regular file/),
    });
    expect(logged("a template file is not valid")).toHaveLength(8);
  });

  it.each([
    ["Broken", "x.yaml", `${yaml("Broken")}comand: x\n`, /x\.yaml.*unknown key "comand"/],
    [
      "Broken",
      "Broken.yaml",
      "template_id: Broken\n\tcommand: x\n",
      /Broken\.yaml: line 2, column 1: Tabs are not allowed/,
    ],
  ])("says what is wrong when it is asked for: %s in %s", async (id, name, content, message) => {
    const { source } = await setUp({ [name]: content });
    const error = await failure(source.get(id));
    expect(error.code).toBe("template_invalid");
    expect(error.message).toMatch(message);
  });

  it("is valid again once it is mended", async () => {
    const { source, shared } = await setUp({ "a.yaml": `${yaml("A")}nope: 1\n` });
    await failure(source.get("A"));
    writeFileSync(join(shared, "a.yaml"), yaml("A"));
    expect(await source.get("A")).toBeDefined();
    expect((await source.list()).invalid).toEqual([]);
  });

  it("of two files with one id the first folder counts, then the first name", async () => {
    const { source, own, shared } = await setUp({
      "1.yaml": yaml("A", "shared1"),
      "2.yaml": yaml("A", "shared2"),
    });
    expect((await source.get("A"))?.origin).toBe(join(shared, "1.yaml"));
    writeFileSync(join(own, "z.yaml"), yaml("A", "own"));
    expect((await source.get("A"))?.origin).toBe(join(own, "z.yaml"));
    const { documents, invalid } = await source.list();
    expect(documents).toHaveLength(1);
    expect(invalid).toEqual(
      ["1.yaml", "2.yaml"].map((name) => ({
        origin: join(shared, name),
        template_id: "A",
        error: `template ${join(shared, name)}: A is the file ${join(own, "z.yaml")} already, which comes first`,
      })),
    );
  });

  it.runIf(process.getuid?.() === 0)("is a file that others may write, when the daemon is root", async () => {
    const { source, shared } = await setUp({ "a.yaml": yaml("A") });
    chmodSync(join(shared, "a.yaml"), 0o666);
    expect((await failure(source.get("A"))).message).toContain("can be written by everybody");
  });
});

describe("templates in code", () => {
  const code = (command: string) =>
    `import { command } from "./part.js";\nexport default { template_id: "Code", command: "${command}" + command };`;

  it("are read at the start and on reload only", async () => {
    const { source, shared, logged } = await setUp({
      "a.ts": code("one"),
      "part.ts": "export const command = 1;",
    });
    // part.ts is no template, and says so.
    expect((await source.list()).invalid).toHaveLength(1);
    const command = async () =>
      ((await source.get("Code"))?.document as { command?: string } | undefined)?.command;
    expect(await command()).toBe("one1");
    writeFileSync(join(shared, "a.ts"), code("three"));
    writeFileSync(join(shared, "part.ts"), "export const command = 2;");
    expect(await command()).toBe("one1");
    await source.list();
    expect(logged("a template in code has changed; a reload takes it over")).toContainEqual({
      file: join(shared, "a.ts"),
    });
    await source.reload();
    expect(await command()).toBe("three2");
  });

  it("that come later are listed as not read", async () => {
    const { source, shared } = await setUp();
    writeFileSync(
      join(shared, "Late.mjs"),
      'globalThis.lateRan = true; export default { template_id: "Late", command: "run" };',
    );
    expect((await source.list()).invalid).toMatchObject([{ origin: join(shared, "Late.mjs") }]);
    expect((await failure(source.get("Late"))).message).toContain("code is read at the start and on reload");
    expect(globalThis).not.toHaveProperty("lateRan");
    await source.reload();
    expect(await source.get("Late")).toBeDefined();
    delete (globalThis as Record<string, unknown>)["lateRan"];
  });
});

describe("watching", () => {
  it("tells changes in the log soon, those that come together once", async () => {
    const { shared, logged, clock } = await setUp({ "a.yaml": yaml("A") });
    expect(logged("a template was found")).toMatchObject([{ template_id: "A" }]);
    writeFileSync(join(shared, "a.yaml"), yaml("A", "other"));
    writeFileSync(join(shared, "b.yaml"), yaml("B"));
    writeFileSync(join(shared, "c.yaml"), "nope");
    await waitFor(() => clock.pending() === 1, { what: "the changes to be noticed" });
    await clock.advance(100);
    await waitFor(() => logged("a template was found").length === 2, { what: "the reading" });
    expect(logged("a template was found")[1]).toMatchObject({
      file: join(shared, "b.yaml"),
      template_id: "B",
    });
    expect(logged("a template has changed")).toMatchObject([{ template_id: "A" }]);
    expect(logged("a template file is not valid")).toMatchObject([{ file: join(shared, "c.yaml") }]);
  });

  it("goes on when the folder was replaced by another", async () => {
    const { shared, logged, clock, source } = await setUp({ "a.yaml": yaml("A") });
    renameSync(shared, `${shared}.old`);
    cleanups.push(() => rmSync(`${shared}.old`, { recursive: true }));
    expect(await source.get("A")).toBeUndefined();
    expect(logged("a template file is gone")).toEqual([{ file: join(shared, "a.yaml") }]);
    mkdirSync(shared);
    await source.list();
    await clock.advance(1_000);
    writeFileSync(join(shared, "b.yaml"), yaml("B"));
    await waitFor(() => clock.pending() === 1, { what: "the change to be noticed" });
    await clock.advance(100);
    await waitFor(() => logged("a template was found").length === 2, { what: "the reading" });
  });

  it("ends with the plugin", async () => {
    const { host, shared, clock } = await setUp();
    await host.stop();
    writeFileSync(join(shared, "a.yaml"), yaml("A"));
    // Inotify is synchronous: what was to come would be in the queue by now.
    await new Promise((resolve) => setImmediate(resolve));
    await new Promise((resolve) => setImmediate(resolve));
    expect(clock.pending()).toBe(0);
  });
});

describe("put", () => {
  const document = (id: string, more: object = {}) => ({ template_id: id, command: "run", ...more });

  it("writes a file of its own, for the daemon's user alone, and answers it", async () => {
    const { source, own } = await setUp();
    const made = await source.put("New_v1", document("New_v1", { description: "ü" }));
    const file = join(own, "New_v1.json");
    expect(made).toMatchObject({ template_id: "New_v1", origin: file, baseDir: own });
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(JSON.parse(readFileSync(file, "utf8"))).toEqual(document("New_v1", { description: "ü" }));
    expect(readdirSync(own)).toEqual(["New_v1.json"]);
    expect(await source.get("New_v1")).toEqual(made);
    const again = await source.put("New_v1", document("New_v1"));
    expect(again.revision).not.toBe(made.revision);
    expect(await ids(source)).toEqual(["New_v1"]);
  });

  it("keeps the document as it was written", async () => {
    const { source } = await setUp();
    const written = document("A", { stop: { grace: "30s" }, params: { n: { type: "integer", default: 3 } } });
    expect((await source.put("A", written)).document).toEqual(written);
  });

  it("makes the folder again when it is gone", async () => {
    const { source, own } = await setUp();
    rmSync(own, { recursive: true });
    await source.put("A", document("A"));
    expect(statSync(own).mode & 0o777).toBe(0o700);
  });

  it.each<[string, unknown, RegExp]>([
    ["an unknown key", document("A", { comand: "x" }), /unknown key "comand"/],
    ["another id", document("B"), /template_id is "B", expected "A"/],
    ["a relative path", document("A", { command: "./run.sh" }), /"\.\/run\.sh" is relative/],
    ["a relative folder", document("A", { cwd: "work" }), /"work" is relative/],
    ["no object", [], /expected object/],
    [
      "too much",
      document("A", {
        description: "x",
        args: ["y".repeat(130_000), "z".repeat(130_000), "x".repeat(10_000)],
      }),
      /bytes, and a template may have 262144/,
    ],
    [
      "a prototype",
      JSON.parse('{"template_id":"A","command":"run","labels":{"__proto__":{"a":"b"}}}'),
      /__proto__ is not allowed as a key/,
    ],
  ])("refuses %s, and keeps what was there", async (_what, bad, message) => {
    const { source, own } = await setUp();
    await source.put("A", document("A"));
    const error = await failure(source.put("A", bad));
    expect(error.code).toBe("template_invalid");
    expect(error.message).toMatch(message);
    expect(error.message).not.toContain(own);
    expect(JSON.parse(readFileSync(join(own, "A.json"), "utf8"))).toEqual(document("A"));
    expect(readdirSync(own)).toEqual(["A.json"]);
  });

  it.each(["../x", "a/b", "..", "", "x\0", "-x"])("refuses the id %j whoever let it pass", async (id) => {
    const { source, home } = await setUp();
    expect((await failure(source.put(id, document(id)))).code).toBe("input_invalid");
    expect((await failure(source.delete(id))).code).toBe("input_invalid");
    expect(readdirSync(home)).toEqual(["templates"]);
  });

  it("refuses an id that another file holds, valid or not", async () => {
    const { source, own, shared } = await setUp({ "a.yaml": yaml("A"), "b.yaml": `${yaml("B")}nope: 1\n` });
    writeFileSync(join(own, "c.yaml"), yaml("C"));
    writeFileSync(join(own, "D.json"), JSON.stringify(document("Other")));
    for (const [id, file] of [
      ["A", join(shared, "a.yaml")],
      ["B", join(shared, "b.yaml")],
      ["C", join(own, "c.yaml")],
      ["D", join(own, "D.json")],
    ] as const) {
      const before = readFileSync(file, "utf8");
      for (const error of [await failure(source.put(id, document(id))), await failure(source.delete(id))]) {
        expect(error.code).toBe("template_read_only");
        expect(error.message).toContain(file);
      }
      expect(readFileSync(file, "utf8")).toBe(before);
    }
  });

  it("replaces its own file when that is broken", async () => {
    const { source, own } = await setUp();
    writeFileSync(join(own, "A.json"), "{ broken");
    expect((await failure(source.get("A"))).code).toBe("template_invalid");
    expect((await source.put("A", document("A"))).template_id).toBe("A");
  });

  it("goes through no link", async () => {
    const { source, own, home } = await setUp();
    const target = join(home, "target.json");
    writeFileSync(target, JSON.stringify(document("Target")));
    symlinkSync(target, join(own, "A.json"));
    symlinkSync(join(home, "nowhere"), join(own, "B.json"));
    for (const id of ["A", "B"]) {
      expect((await failure(source.put(id, document(id)))).code).toBe("template_read_only");
      expect((await failure(source.delete(id))).code).toBe("template_read_only");
      expect(lstatSync(join(own, `${id}.json`)).isSymbolicLink()).toBe(true);
    }
    expect(JSON.parse(readFileSync(target, "utf8"))).toEqual(document("Target"));
    expect(existsSync(join(home, "nowhere"))).toBe(false);
    const elsewhere = newFolder();
    rmSync(own, { recursive: true });
    symlinkSync(elsewhere, own);
    expect((await failure(source.put("C", document("C")))).code).toBe("template_read_only");
    expect(readdirSync(elsewhere)).toEqual([]);
  });

  it("says why it cannot write, and leaves nothing behind", async () => {
    const { source, own } = await setUp();
    mkdirSync(join(own, "sub"));
    rmSync(own, { recursive: true });
    writeFileSync(own, "");
    const error = await failure(source.put("A", document("A")));
    expect(error.code).toBe("home_unusable");
    expect(error.message).toContain(own);
  });

  it("takes many at once, and every one is whole", async () => {
    const { source, own } = await setUp();
    const names = Array.from({ length: 20 }, (_, index) => `T${index % 5}`);
    await Promise.all(names.map((id, index) => source.put(id, document(id, { description: `${index}` }))));
    expect(await ids(source)).toEqual(["T0", "T1", "T2", "T3", "T4"]);
    for (const name of readdirSync(own))
      expect(JSON.parse(readFileSync(join(own, name), "utf8"))).toHaveProperty("command");
  });
});

describe("delete", () => {
  it("removes what put made, also when it is not valid any more", async () => {
    const { source, own } = await setUp();
    await source.put("A", { template_id: "A", command: "run" });
    expect(await source.delete("A")).toBe(true);
    expect(readdirSync(own)).toEqual([]);
    expect(await source.delete("A")).toBe(false);
    writeFileSync(join(own, "B.json"), "{ broken");
    expect(await source.delete("B")).toBe(true);
    expect(readdirSync(own)).toEqual([]);
  });
});
