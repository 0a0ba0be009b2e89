import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { HOME_FILES } from "../../bin/daemon/home.js";
import { EXIT, EXIT_CODES } from "../../bin/exit-codes.js";
import { type AgentEvent, TRANSITIONS } from "../../core/agents/state.js";
import { CONFIG_NAMES } from "../../core/config/config-reader.js";
import type { HookName } from "../../core/contracts/hooks.js";
import { createHooks, HOOK_KINDS } from "../../core/host/hooks.js";
import { createSlotRegistry } from "../../core/host/slots.js";
import * as face from "../../core/index.js";
import {
  AGENT_STATES,
  type AgentState,
  configSchema,
  createTemplateLanguage,
  ERROR_CODES,
  type ErrorCode,
  EVENT_TYPES,
  type Operation,
  operation,
  type PluginDefinition,
  parseData,
  probe,
  type Slot,
  STAGES,
  templateSection,
  validateSync,
} from "../../core/index.js";
import { builtins } from "../../plugins/builtins.js";
import { HTTP_STATUSES } from "../../plugins/http-api/statuses.js";
import { agentSchema, exitSchema } from "../../plugins/operation-agents/schemas.js";
import { evidenceSchema } from "../../plugins/operation-agents/why/evidence.js";
import { whySchema } from "../../plugins/operation-agents/why/why.js";
import {
  allPages,
  anchors,
  code,
  fences,
  marked,
  ROOT,
  readPage,
  rows,
  section,
  withoutFences,
} from "../docs/pages.js";
import { documentedDefaults, expectDefaults, keysOf } from "../docs/schema-keys.js";
import { createPluginHost } from "../helpers/plugin-host.js";
import { templateLanguage } from "../helpers/template-language.js";

const pages = allPages();
const page = (name: string) => readPage(join("docs", name));
const sorted = (values: Iterable<string>) => [...values].sort();

/** The definitions of the built-in plugins, by name. */
async function definitions(): Promise<Map<string, PluginDefinition>> {
  const loaded = [...builtins].map(
    async ([name, { load }]) => [name, (await load()).default.definition] as const,
  );
  return new Map(await Promise.all(loaded));
}

describe("links and files", () => {
  it("every relative link leads to a file, and its anchor to a heading", () => {
    const broken = pages.flatMap(({ path, text }) =>
      [...withoutFences(text).matchAll(/\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)/g)].flatMap(
        ([link, to = "", anchor]) => {
          const file = to === "" ? join(ROOT, path) : resolve(ROOT, dirname(path), to);
          if (!existsSync(file)) return [`${path}: ${link}`];
          const missing = anchor !== undefined && !anchors(readFileSync(file, "utf8")).includes(anchor);
          return missing ? [`${path}: ${link} (no such heading)`] : [];
        },
      ),
    );
    expect(broken).toEqual([]);
  });

  it("no page names a file of this repository that does not exist", () => {
    const missing = pages.flatMap(({ path, text }) =>
      code(text)
        .filter(
          (it) =>
            /^(core|plugins|bin|test|examples|docs)\/[\w./-]*$/.test(it) &&
            !/[A-Z]{2}/.test(it.split("/")[1] ?? ""),
        )
        .filter((it) => !existsSync(join(ROOT, it)))
        .map((it) => `${path}: ${it}`),
    );
    expect(missing).toEqual([]);
  });

  it("no message of the daemon names a page that does not exist", () => {
    const sources = ["core", "plugins", "bin"].flatMap((folder) =>
      readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
        .filter((name) => name.endsWith(".ts"))
        .map((name) => join(folder, name)),
    );
    const named = sources.flatMap((file) =>
      [...readFileSync(join(ROOT, file), "utf8").matchAll(/docs\/[\w-]+\.md/g)].map(
        ([name]) => `${file}: ${name}`,
      ),
    );
    expect(named.filter((it) => !existsSync(join(ROOT, it.split(": ")[1] ?? "")))).toEqual([]);
  });

  it("the index has one line for each page", () => {
    const listed = [...page("README.md").text.matchAll(/^- \[(\S+)\]\(\1\): .+$/gm)].map(
      ([, name = ""]) => name,
    );
    const present = readdirSync(join(ROOT, "docs")).filter(
      (name) => name.endsWith(".md") && name !== "README.md",
    );
    expect(sorted(listed)).toEqual(sorted(present));
  });

  it("every plugin folder has a README with its name and its options", async () => {
    const known = await definitions();
    const folders = readdirSync(join(ROOT, "plugins")).filter((name) =>
      statSync(join(ROOT, "plugins", name)).isDirectory(),
    );
    for (const name of folders.filter((it) => it !== "kit")) {
      const { text } = readPage(join("plugins", name, "README.md"));
      expect(text.split("\n")[0]).toBe(`# ${name}`);
      const definition = known.get(name);
      const options = rows(text).flatMap((row) => code(row["option"]));
      // The options of a probe are given in templates; the plugin itself has none.
      if (definition && !name.startsWith("probe-"))
        expect(sorted(options), name).toEqual(sorted(keysOf(definition.options)));
    }
    expect(sorted(known.keys()).filter((name) => !folders.includes(name))).toEqual([]);
  });
});

describe("quotes", () => {
  it("quoted contracts are what the files contain", async () => {
    const check = [join(ROOT, "test/docs/refresh.mjs"), "--check"];
    const { stdout } = await promisify(execFile)(process.execPath, check).catch((error) => error);
    expect(stdout).toBe("");
  });

  it("slots.md and plugin-api.md quote every contract once", () => {
    const quoted = ["slots.md", "plugin-api.md"].flatMap((name) =>
      fences(page(name).text, "ts").map((fence) => fence.name),
    );
    const files = readdirSync(join(ROOT, "core/contracts")).map((name) => `core/contracts/${name}`);
    expect(sorted(quoted.map(String))).toEqual(sorted(files));
  });
});

describe("hooks.md", () => {
  const hooks = createHooks();
  const names = Object.keys(hooks) as HookName[];

  it("hooks.md lists every hook with its kind and its class", () => {
    const listed = rows(page("hooks.md").text).filter((row) => row["class (tapable)"] !== undefined);
    expect(listed.map((row) => [code(row["hook"])[0], row["kind"], code(row["class (tapable)"])[0]])).toEqual(
      names.map((name) => [name, HOOK_KINDS[name], hooks[name].constructor.name]),
    );
  });

  it.each(names)(
    "hooks.md says when %s fires, in which order and with which guarantee, and shows a tap",
    (name) => {
      const text = section(page("hooks.md"), name);
      const said = rows(text).map((row) => row["0"]);
      expect(said).toEqual(expect.arrayContaining(["payload", "when", "order", "guarantee"]));
      expect(fences(text, "ts").some(({ content }) => content.includes(`ctx.hooks.${name}.tap(`))).toBe(true);
    },
  );

  it("hooks.md lists the stages", () => {
    const listed = rows(section(page("hooks.md"), "Order")).map((row) => [
      code(row["stage"])[0],
      Number(row["number"]),
    ]);
    expect(listed).toEqual(Object.entries(STAGES));
  });
});

describe("slots.md", () => {
  const isSlot = (it: unknown): it is Slot<unknown> =>
    String((it as Partial<Slot<unknown>>)?.id?.description).startsWith("openstarry.slot.");
  const slots = (Object.values(face) as unknown[]).filter(isSlot);

  it("slots.md lists every slot with its arity and its default providers", async () => {
    const defaults = [...(await definitions())].filter(([name]) => builtins.get(name)?.default);
    const listed = rows(page("slots.md").text).map((row) => [
      code(row["slot"])[0],
      row["how many"],
      ...sorted(code(row["default provider"])),
    ]);
    const expected = slots.map((slot) => {
      const providers = defaults.filter(([, { provides }]) => provides?.some(({ id }) => id === slot.id));
      return [slot.name, slot.arity, ...sorted(providers.map(([name]) => name))];
    });
    expect(listed.sort()).toEqual(expected.sort());
  });
});

describe("lifecycle.md", () => {
  const lifecycle = page("lifecycle.md");

  it("lifecycle.md lists the states", () => {
    expect(rows(section(lifecycle, "States")).map((row) => code(row["state"])[0])).toEqual([...AGENT_STATES]);
  });

  it("lifecycle.md lists exactly the transitions of the state machine", () => {
    const listed = rows(section(lifecycle, "Transitions")).flatMap((row) =>
      [...String(row["from → to"]).matchAll(/`(\w+)` → `(\w+)`/g)].map(
        ([, from, to]) => `${from} ${code(row["event"])[0]} ${to}`,
      ),
    );
    const real = (
      Object.entries(TRANSITIONS) as [AgentState, Partial<Record<AgentEvent, AgentState>>][]
    ).flatMap(([from, events]) => Object.entries(events).map(([event, to]) => `${from} ${event} ${to}`));
    expect(sorted(listed)).toEqual(sorted(real));
  });

  it("lifecycle.md lists all kinds and causes of ends", () => {
    const listed = rows(section(lifecycle, "Ends"));
    expect(listed.flatMap((row) => code(row["kind"]))).toEqual(exitSchema.shape.kind.options);
    expect(sorted(listed.flatMap((row) => code(row["cause"])))).toEqual(
      sorted(exitSchema.shape.cause.options),
    );
  });
});

describe("templates.md", () => {
  const listed = rows(section(page("templates.md"), "Keys")).filter((row) => row["key"]);

  it("templates.md lists every key", () => {
    expect(sorted(listed.flatMap((row) => code(row["key"])))).toEqual(
      sorted(keysOf(templateLanguage.schema)),
    );
  });

  it("templates.md gives the defaults", () => {
    const base = {
      template_id: "T",
      command: "c",
      readiness: { type: "t" },
      liveness: { type: "t" },
      progress: { deadline: "1m" },
      children: {},
      budget: { tokens_max: 1 },
    };
    const defaults = documentedDefaults(listed, "key");
    expect(defaults.length).toBeGreaterThan(20);
    expectDefaults(templateLanguage.schema, base, defaults);
  });
});

describe("config.md", () => {
  const listed = rows(section(page("config.md"), "Keys"));

  it("config.md lists every key and gives the defaults", () => {
    expect(sorted(listed.flatMap((row) => code(row["key"])))).toEqual(sorted(keysOf(configSchema)));
    expectDefaults(
      configSchema,
      {},
      documentedDefaults(listed, "key").filter(([key]) => !key.includes("[]")),
    );
  });

  it("config.md lists the names of config files in order, and the default plugins", () => {
    expect(code(marked(page("config.md"), "names"))).toEqual([...CONFIG_NAMES]);
    const defaults = [...builtins].filter(([, plugin]) => plugin.default).map(([name]) => name);
    expect(code(marked(page("config.md"), "defaults"))).toEqual(defaults);
  });
});

describe("http-api.md", async () => {
  const api = page("http-api.md");
  const providers = [...(await definitions())].flatMap(([name, definition]) =>
    builtins.get(name)?.default && definition.provides?.some(({ id }) => id === operation.id)
      ? [{ definition, options: {} }]
      : [],
  );
  const host = createPluginHost({ plugins: providers });
  // Operations without a route are used by plugins only.
  const all = [...host.use(operation).values()] as unknown as Operation[];
  const operations = all.filter(({ http }) => http !== undefined);
  const inPath = (path: string) => [...path.matchAll(/\{(\w+)/g)].map(([, key = ""]) => key);

  /** A value for each required field. */
  const REQUIRED = {
    signal: "SIGHUP",
    value: 1,
    writes: [{ op: "delete", key: "x" }],
    payload: 1,
    ack: "x",
    group: "x",
  };

  it("http-api.md describes exactly the operations there are", () => {
    const titles = [...section(api, "Operations").matchAll(/^### (\S+)$/gm)].map(([, name = ""]) => name);
    expect(sorted(titles)).toEqual(sorted(operations.map(({ name }) => name)));
  });

  it.each(operations.map((it) => [it.name, it] as const))(
    "http-api.md documents route, scope, fields and defaults of %s",
    (name, it) => {
      const text = section(api, name);
      expect(text.trim()).toMatch(/^`/);
      expect(code(text).slice(0, 2)).toEqual([`${it.http?.method} ${it.http?.path}`, it.scope]);
      const keys = inPath(it.http?.path ?? "");
      const fields = rows(text);
      const known = keysOf(it.input).filter((key) => !key.includes(".") && !keys.includes(key));
      const named = fields.flatMap((row) => code(row["field"]));
      // The keys of a template have a page of their own.
      const elsewhere = text.includes("](templates.md)") ? keysOf(templateLanguage.schema) : [];
      expect(sorted([...named, ...elsewhere.filter((key) => known.includes(key))])).toEqual(sorted(known));
      const base = Object.fromEntries([
        ...keys.map((key) => [key, "x"]),
        ...Object.entries(REQUIRED).filter(([key]) => known.includes(key)),
      ]);
      expectDefaults(it.input, base, documentedDefaults(fields, "field"));
    },
  );

  it("http-api.md lists every field of an agent and of an exit", () => {
    const text = section(api, "An agent");
    const fields = rows(text).flatMap((row) => code(row["field"]));
    expect(sorted(fields)).toEqual(sorted(Object.keys(agentSchema.shape)));
    expect(code(text)).toEqual(expect.arrayContaining(Object.keys(exitSchema.shape)));
    const example = JSON.parse(fences(text, "json")[0]?.content ?? "");
    expect(agentSchema.strict().safeParse(example).error).toBeUndefined();
  });

  it("http-api.md lists every part of why and every kind of evidence, and its example is valid", () => {
    const text = section(api, "agents.why");
    const parts = rows(text).flatMap((row) => code(row["part"]));
    expect(sorted(parts)).toEqual(sorted(Object.keys(whySchema.shape)));
    const kinds = rows(text).flatMap((row) => code(row["kind of evidence"]));
    expect(sorted(kinds)).toEqual(sorted(evidenceSchema.shape.kind.options));
    const example = JSON.parse(fences(text, "json")[0]?.content ?? "");
    expect(whySchema.strict().safeParse(example).error).toBeUndefined();
  });

  it("http-api.md lists every error code with its status, exit code and title", () => {
    const listed = rows(section(api, "Errors")).map((row) => [
      code(row["code"])[0],
      { status: Number(row["status"]), exit: Number(row["exit"]), title: row["title"] },
    ]);
    expect(Object.fromEntries(listed)).toEqual(
      Object.fromEntries(
        Object.entries(ERROR_CODES).map(([name, title]) => {
          const known = name as ErrorCode;
          return [name, { status: HTTP_STATUSES[known], exit: EXIT_CODES[known], title }];
        }),
      ),
    );
  });

  it("the tables of HTTP statuses and of exit codes have the same codes as the kernel", () => {
    const codes = Object.keys(ERROR_CODES);
    expect(Object.keys(HTTP_STATUSES)).toEqual(codes);
    expect(Object.keys(EXIT_CODES)).toEqual(codes);
  });

  it("http-api.md names no error code that does not exist", () => {
    const named = code(api.text.replace(/^## Answers[\s\S]*?^## Pages/m, "")).filter((it) =>
      /^[a-z]+(_[a-z]+)+$/.test(it),
    );
    const fields = operations.flatMap((it) => keysOf(it.input).flatMap((key) => key.split(".")));
    const suspects = named.filter((it) =>
      /_(invalid|forbidden|found|missing|failed|exists|running|over|limited|large)$/.test(it),
    );
    expect(suspects.length).toBeGreaterThan(20);
    expect(suspects.filter((it) => !(it in ERROR_CODES) && !fields.includes(it))).toEqual([]);
  });

  it("http-api.md lists every event type and every scope", () => {
    expect(rows(section(api, "Streams")).flatMap((row) => code(row["event"]))).toEqual([...EVENT_TYPES]);
    const scopes = rows(section(api, "Authentication")).flatMap((row) => code(row["scope"]));
    expect(sorted(scopes)).toEqual(sorted(new Set(operations.map(({ scope }) => scope))));
  });
});

describe("operations.md", () => {
  it("operations.md lists the files of the home and the exit codes", () => {
    const files = rows(section(page("operations.md"), "The daemon's folder")).flatMap((row) =>
      code(row["file"]),
    );
    expect(files).toEqual(expect.arrayContaining(Object.values(HOME_FILES)));
    const codes = rows(section(page("operations.md"), "Exit codes")).map((row) => Number(row["code"]));
    expect(codes).toEqual(Object.values(EXIT));
  });
});

describe("data in examples", () => {
  it("every JSON example can be parsed", () => {
    const all = pages.flatMap(({ path, text }) =>
      fences(text, "json").map(({ content }) => ({ path, content })),
    );
    expect(all.length).toBeGreaterThan(2);
    for (const { path, content } of all) expect(() => JSON.parse(content), path).not.toThrow();
  });

  it("every YAML example is a valid template or config, or a part of one, with existing probes", async () => {
    const providers = [...(await definitions()).values()].filter(({ provides }) =>
      provides?.some(({ id }) => id === templateSection.id || id === probe.id),
    );
    const slots = createSlotRegistry();
    createPluginHost({ plugins: providers.map((definition) => ({ definition, options: {} })), slots });
    const language = createTemplateLanguage(slots.use(templateSection).values());
    const all = pages.flatMap(({ path, text }) =>
      fences(text, "yaml").map(({ content }) => ({ path, content })),
    );
    expect(all.length).toBeGreaterThan(5);
    for (const { path, content } of all) {
      const { value } = await parseData(content, { format: "yaml", code: "internal", what: path });
      const document = { template_id: "T", command: "/bin/true", ...(value as object) };
      const isConfig = ["agents", "plugins", "templates"].some((key) => Object.hasOwn(value as object, key));
      if (isConfig) validateSync(configSchema, value, { code: "internal", what: path });
      else {
        const { template_id } = document;
        const source = { template_id, revision: "1", origin: path, baseDir: "/", document };
        language.checkStart(language.parse(source));
      }
    }
  });
});
