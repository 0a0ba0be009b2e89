import { describe, expect, it } from "vitest";
import { isOpenStarryError, type OpenStarryError } from "../../../../core/contracts/errors.js";
import type { TemplateDocument } from "../../../../core/contracts/template-source.js";
import { paramsJsonSchema, parseParams } from "../../../../core/template/params.js";
import { expandPlaceholders } from "../../../../core/template/placeholders.js";
import { templateLanguage } from "../../../helpers/template-language.js";

function source(document: Record<string, unknown>, more: Partial<TemplateDocument> = {}): TemplateDocument {
  const { template_id = "T_v1" } = document as { template_id?: string };
  return {
    template_id,
    revision: "r1",
    origin: "/t/T_v1.yaml",
    baseDir: "/t",
    ...more,
    document: { template_id: "T_v1", command: "run", ...document },
  };
}

const parse = (document: Record<string, unknown>, more?: Partial<TemplateDocument>) =>
  templateLanguage.parse(source(document, more));

function failure(work: () => unknown): OpenStarryError {
  try {
    work();
  } catch (error) {
    if (isOpenStarryError(error)) return error;
    throw error;
  }
  throw new Error("it did not fail");
}

describe("parseTemplate", () => {
  it("fills in the defaults, durations in milliseconds", () => {
    expect(parse({}).template).toEqual({
      template_id: "T_v1",
      description: "",
      command: "run",
      args: [],
      params: {},
      env: {},
      pass_env: [],
      env_file: [],
      spawner: "process",
      requires: [],
      restart: {
        policy: "on-failure",
        max_restarts: 5,
        periodMs: 60_000,
        backoff: { minMs: 1_000, maxMs: 60_000 },
      },
      success_exit_codes: [0],
      stop: { signal: "SIGTERM", graceMs: 10_000 },
      detach: false,
      priority: 0,
      logs: { maxSizeBytes: 10 * 2 ** 20, keep: 5, merge: false },
      labels: {},
    });
  });

  it.each([
    [{ budget: {} }, "budget: it limits nothing: set tokens_max, cost_max_usd or both"],
    [{ budget: { tokens_max: 0 } }, "budget.tokens_max: expected a number of at least 1"],
    [{ budget: { tokens_max: 1.5 } }, "budget.tokens_max: expected a whole number"],
    [{ budget: { cost_max_usd: 0 } }, "budget.cost_max_usd: expected a number of more than 0"],
    [{ budget: { cost_max_usd: Number.NaN } }, "budget.cost_max_usd: expected number"],
    [{ budget: { cost_max_usd: 1, on_exceed: "pause" } }, 'budget.on_exceed: expected "warn" or "stop"'],
    [{ priority: 1001 }, "priority: expected a number of at most 1000"],
    [{ priority: "high" }, "priority: expected number"],
  ])("refuses %j", (document, words) => {
    expect(failure(() => parse(document)).message).toContain(words);
  });

  it("keeps revision, origin and folder", () => {
    expect(parse({})).toMatchObject({ revision: "r1", origin: "/t/T_v1.yaml", baseDir: "/t" });
  });

  it("reads durations", () => {
    const { template } = parse({
      restart: { period: "1m30s", backoff: { min: "2m" } },
      stop: { grace: "500ms" },
      remove_after: "1d",
      readiness: { type: "notify" },
    });
    expect(template.restart).toMatchObject({ periodMs: 90_000, backoff: { minMs: 120_000, maxMs: 120_000 } });
    expect(template.stop.graceMs).toBe(500);
    expect(template).toMatchObject({
      removeAfterMs: 86_400_000,
      readiness: { type: "notify", timeoutMs: 60_000 },
    });
  });

  it.each<[string, Record<string, unknown>, object | undefined]>([
    ["nothing", {}, undefined],
    ["none", { readiness: { type: "none" } }, undefined],
    [
      "its own limit first",
      { startup: { timeout: "1s" }, readiness: { type: "x", timeout: "2s" } },
      { type: "x", timeoutMs: 2_000 },
    ],
    [
      "then the start-up's",
      { startup: { timeout: "5m" }, readiness: { type: "x" } },
      { type: "x", timeoutMs: 300_000 },
    ],
    [
      "the liveness probe",
      { startup: { timeout: "5m" }, liveness: { type: "http", port: 80 } },
      { type: "http", port: 80, timeoutMs: 300_000 },
    ],
    ["no liveness probe without startup", { liveness: { type: "http", port: 80 } }, undefined],
  ])("readiness: %s", (_, document, readiness) => {
    expect(parse(document).template.readiness).toEqual(readiness);
  });

  it("fills in what is to be done without progress", () => {
    expect(parse({ progress: { deadline: "10m" } }).template.progress).toEqual({
      deadlineMs: 600_000,
      graceMs: 60_000,
      nudge: "SIGCONT",
    });
  });

  it.each<[string, Record<string, unknown>, RegExp]>([
    [
      "a start-up of which nothing tells that it is over",
      { startup: { timeout: "1s" } },
      /startup: nothing tells when .* declare readiness or liveness/,
    ],
    [
      "a deadline of nothing",
      { progress: { deadline: "0s" } },
      /progress\.deadline: expected a duration of at least 1s/,
    ],
    [
      "a nudge that kills",
      { progress: { deadline: "1m", nudge: "SIGKILL" } },
      /progress\.nudge: expected one of "SIGCONT"/,
    ],
    [
      "a placeholder in a probe that is no parameter",
      { liveness: { type: "exec", args: ["{{params.no}}"] } },
      /liveness\.args\[0\]: unknown placeholder \{\{params\.no\}\}/,
    ],
    ["an unknown key", { comand: "x" }, /unknown key "comand" \(did you mean "command"\?\)/],
    [
      "an unknown key further in",
      { restart: { polcy: "never" } },
      /unknown key "restart\.polcy" \(did you mean "policy"\?\)/,
    ],
    [
      "an unknown key like nothing",
      { zzzzzzzzzzzz: 1 },
      /unknown key "zzzzzzzzzzzz" \(known: template_id, description, command/,
    ],
    ["a missing command", { command: undefined }, /command: it is missing; expected string/],
    ["an empty command", { command: "" }, /command: expected at least 1 character$/],
    ["NUL in the command", { command: "a\0b" }, /command: it holds a NUL character/],
    ["arguments that are no list", { args: "-m x" }, /args: expected array, received string/],
    [
      "an argument that is no text",
      { args: ["-n", 5] },
      /args\[1\]: expected string, received number; put it in quotes/,
    ],
    [
      "a duration without a unit",
      { stop: { grace: "30" } },
      /stop\.grace: expected a duration with its unit/,
    ],
    ["a bound for output too small", { logs: { max_size: "1KiB" } }, /logs\.max_size: .*at least/],
    ["a duration as a number", { stop: { grace: 30 } }, /stop\.grace: expected string, received number/],
    [
      "a value that is not one of",
      { restart: { policy: "sometimes" } },
      /restart\.policy: expected one of "never", "on-failure", "always"/,
    ],
    ["a signal that is none", { stop: { signal: "TERM" } }, /stop\.signal: expected one of "SIGTERM"/],
    [
      "a backoff upside down",
      { restart: { backoff: { min: "10s", max: "1s" } } },
      /restart\.backoff\.max: it is less than min/,
    ],
    [
      "a bad variable name",
      { env: { "A-B": "x" } },
      /env\.A-B: this name is not valid: expected a variable name/,
    ],
    ["a variable of the daemon's", { env: { OPENSTARRY_API_URL: "x" } }, /OPENSTARRY_ are the daemon's own/],
    [
      "a variable of the daemon's handed on",
      { pass_env: ["OPENSTARRY_X"] },
      /pass_env\[0\]: .*the daemon's own/,
    ],
    [
      "a variable that is no text",
      { env: { A: true } },
      /env\.A: expected string, received boolean; put it in quotes/,
    ],
    [
      "an exit code too big",
      { success_exit_codes: [256] },
      /success_exit_codes\[0\]: expected a number of at most 255/,
    ],
    [
      "a bad requirement",
      { requires: ["agent:../x"] },
      /requires\[0\]: expected a service name or "agent:ID"/,
    ],
    ["a probe without a type", { readiness: { timeout: "1s" } }, /readiness\.type: it is missing/],
  ])("refuses %s", (_what, document, message) => {
    const error = failure(() => parse(document));
    expect(error.code).toBe("template_invalid");
    expect(error.message).toMatch(/^template T_v1 \(\/t\/T_v1\.yaml\): /);
    expect(error.message).toMatch(message);
  });

  it("names every mistake at once", () => {
    const { message } = failure(() => parse({ args: 1, stop: { grace: "x" }, nope: 1 }));
    for (const part of ["args: ", "stop.grace: ", 'unknown key "nope"']) expect(message).toContain(part);
  });

  it("refuses a document of another id", () => {
    const error = failure(() => parse({ template_id: "Other" }, { template_id: "T_v1" }));
    expect(error.message).toContain('template_id is "Other", expected "T_v1"');
  });

  it.each(["../x", "a/b", "", ".x", "-x", "a\nb", "%2e", "x".repeat(64)])("refuses the id %j", (id) => {
    expect(failure(() => parse({ template_id: id })).message).toMatch(
      /template_id: (expected 1 to 63|it is missing)/,
    );
  });

  it.each([
    ["command", { command: "./run.sh" }],
    ["cwd", { cwd: "work" }],
    ["env_file", { env_file: [".env"] }],
  ])("refuses a relative %s where there is no folder to start from", (_field, document) => {
    const error = failure(() => parse(document, { baseDir: undefined }));
    expect(error.message).toContain("is relative");
    expect(error.hint).toContain("absolute path");
    expect(parse(document).template).toMatchObject(document);
  });

  it("takes a command by name and absolute paths where there is no folder", () => {
    const document = { command: "node", cwd: "/srv", env_file: ["/srv/.env"] };
    expect(parse(document, { baseDir: undefined }).template).toMatchObject(document);
  });
});

describe("the JSON Schemas of params", () => {
  it.each<[string, unknown, RegExp]>([
    [
      "a misspelt keyword",
      { type: "string", maxLenght: 3 },
      /params\.p\.maxLenght: .*did you mean "maxLength"/,
    ],
    [
      "an unknown keyword",
      { type: "string", zzzzzz: 3 },
      /params\.p\.zzzzzz: this keyword of JSON Schema is not known here/,
    ],
    ["a reference", { $ref: "http://evil/x" }, /params\.p\.\$ref: this keyword/],
    ["a condition", { type: "string", if: {} }, /params\.p\.if: this keyword/],
    ["an unknown type", { type: "strng" }, /params\.p\.type: expected one of string, number/],
    [
      "a limit without its type",
      { minimum: 3 },
      /params\.p\.minimum: minimum needs type: number or integer beside it/,
    ],
    ["a limit of another type", { type: "string", maximum: 3 }, /maximum needs type: number or integer/],
    ["a limit that is no number", { type: "integer", minimum: "3" }, /params\.p\.minimum: expected a number/],
    [
      "a negative length",
      { type: "string", minLength: -1 },
      /params\.p\.minLength: expected a whole number of at least 0/,
    ],
    [
      "a pattern that is none",
      { type: "string", pattern: "([" },
      /params\.p\.pattern: expected a regular expression/,
    ],
    ["an empty enum", { enum: [] }, /params\.p\.enum: expected a list with at least one value/],
    [
      "a mistake further in",
      { type: "array", items: { type: "object", properties: { a: { typ: "string" } } } },
      /params\.p\.items\.properties\.a\.typ: .*"type"/,
    ],
    ["a type instead of a schema", "string", /params\.p: expected (object|record), received string/],
    [
      "a default that does not fit",
      { type: "integer", default: "x" },
      /params\.p\.default: expected number, received string/,
    ],
    [
      "a default out of bounds",
      { type: "integer", maximum: 3, default: 4 },
      /params\.p\.default: expected a number of at most 3/,
    ],
  ])("refuses %s", (_what, schema, message) => {
    const error = failure(() => parse({ params: { p: schema } }));
    expect(error.code).toBe("template_invalid");
    expect(error.message).toMatch(message);
  });

  it("require what has no default, and allow nothing else", () => {
    const { template } = parse({ params: { a: { type: "string" }, b: { type: "integer", default: 3 } } });
    expect(paramsJsonSchema(template)).toEqual({
      type: "object",
      properties: { a: { type: "string" }, b: { type: "integer", default: 3 } },
      required: ["a"],
      additionalProperties: false,
    });
  });
});

describe("parseParams", () => {
  const check = (schema: unknown, value: unknown) =>
    parseParams(parse({ params: { p: schema } }), value === undefined ? {} : { p: value })["p"];

  it.each<[unknown, unknown, unknown?]>([
    [{ type: "string" }, "a"],
    [{ type: "string", minLength: 1, maxLength: 3, pattern: "^[a-z]+$" }, "abc"],
    [{ type: "integer", minimum: 1, maximum: 3 }, 3],
    [{ type: "number", exclusiveMinimum: 0, multipleOf: 0.5 }, 1.5],
    [{ type: "boolean" }, false],
    [{ enum: ["a", "b"] }, "b"],
    [{ enum: [1, 2] }, 2],
    [{ enum: ["a", 1, null] }, null],
    [{ const: "x" }, "x"],
    [{ type: ["string", "null"] }, null],
    [{ type: "array", items: { type: "string" }, minItems: 1, maxItems: 2 }, ["a", "b"]],
    [
      { type: "object", properties: { a: { type: "integer" } }, required: ["a"] },
      { a: 1, more: true },
    ],
    [{ anyOf: [{ type: "string" }, { type: "integer" }] }, 3],
    [{ description: "whatever it is" }, { deep: [1] }],
    [{ type: "string", default: "./inbox" }, undefined, "./inbox"],
    [{ type: "object", default: { a: [1] } }, undefined, { a: [1] }],
    [{ type: "object", properties: { n: { type: "integer", default: 3 } } }, {}, { n: 3 }],
  ])("by %j takes %j", (schema, value, made = value) => {
    expect(check(schema, value)).toEqual(made);
  });

  it.each<[unknown, unknown, RegExp]>([
    [{ type: "string" }, undefined, /p: it is missing; expected string/],
    [{ type: "string" }, 3, /p: expected string, received number/],
    [{ type: "string" }, null, /p: expected string, received null/],
    [{ type: "string" }, { a: 1 }, /p: expected string, received object/],
    [{ type: "string", minLength: 2 }, "a", /p: expected at least 2 characters/],
    [{ type: "string", maxLength: 2 }, "abc", /p: expected at most 2 characters/],
    [{ type: "string", pattern: "^[a-z]+$" }, "--log-file=x", /p: .*must match pattern \/\^\[a-z\]\+\$\//],
    [{ type: "integer" }, 1.5, /p: expected a whole number, received number/],
    [{ type: "integer" }, "7", /p: expected number, received string/],
    [{ type: "integer", minimum: 1 }, 0, /p: expected a number of at least 1/],
    [{ type: "number", exclusiveMaximum: 5 }, 5, /p: expected a number of less than 5/],
    [{ type: "boolean" }, "true", /p: expected boolean, received string/],
    [{ enum: ["a", "b", "c"] }, "d", /p: expected one of "a", "b", "c"/],
    [{ type: "string", enum: ["a", "b"] }, "d", /p: expected "a" or "b"/],
    [{ enum: [1, 2] }, 3, /p: expected 1 or 2/],
    [{ enum: ["a", 1, null] }, "x", /p: expected one of "a", 1, null/],
    [{ const: "x" }, "y", /p: expected "x"/],
    [{ type: ["string", "null"] }, 3, /p: expected string or null/],
    [{ anyOf: [{ type: "string" }, { type: "integer" }] }, true, /p: expected string or number/],
    [{ type: "array", items: { type: "string" } }, ["a", 1], /p\[1\]|p\.1/],
    [{ type: "array", items: { type: "string" }, maxItems: 1 }, ["a", "b"], /p: expected at most 1 item$/],
    [{ type: "object", properties: { a: { type: "string" } }, required: ["a"] }, {}, /p\.a: it is missing/],
  ])("by %j refuses %j", (schema, value, message) => {
    const error = failure(() => check(schema, value));
    expect(error.code).toBe("params_invalid");
    expect(error.message).toMatch(/^params of T_v1: /);
    expect(error.message).toMatch(message);
  });

  const pinned = parse({
    params: {
      folder: { type: "string" },
      mode: { enum: ["fast", "slow"], default: "fast" },
      top: { type: ["integer", "null"], default: null },
    },
  });

  it("suggests the name that was meant, and tells what it takes", () => {
    const error = failure(() => parseParams(pinned, { foldr: "x" }));
    expect(error.message).toContain('unknown key "foldr" (did you mean "folder"?)');
    expect(error.message).toContain("folder: it is missing");
    expect(error.hint).toBe(
      'it takes folder (string, required), mode ("fast" or "slow", optional), top (integer or null, optional)',
    );
    expect(failure(() => parseParams(parse({}), { a: 1 })).hint).toBe("it takes no parameters");
  });

  it("neither takes nor makes a prototype", () => {
    const hostile = JSON.parse('{"folder":"x","__proto__":{"polluted":true}}');
    const made = (() => {
      try {
        return parseParams(pinned, hostile);
      } catch {
        return {};
      }
    })();
    expect((made as { polluted?: unknown }).polluted).toBeUndefined();
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
    expect(failure(() => parseParams(pinned, { folder: "x", constructor: 1 })).message).toContain(
      '"constructor"',
    );
  });
});

describe("placeholders", () => {
  const expand = (text: string, params: Record<string, unknown> = {}) =>
    expandPlaceholders(text, "worker_7", params);

  it.each([["{{params.x}}", "{{ params.x }}", "--x={{params.x}}", "{{agent_id}}"]])(
    "may stand in args, env and cwd",
    (...texts) => {
      const params = { x: { type: "string" } };
      expect(parse({ args: texts, env: { A: texts[0] }, cwd: texts[2], params }).template.args).toEqual(
        texts,
      );
    },
  );

  it.each([
    "{{params.y}}",
    "{{x}}",
    "{{env:TOKEN}}",
    "{{constructor.constructor('x')()}}",
    "{{#with x}}",
    "{{params.constructor}}",
    "{{params.__proto__}}",
    "{{run_id}}",
  ])("%s is refused by name", (text) => {
    for (const [field, document] of [
      ["args[0]", { args: [text] }],
      ["env.A", { env: { A: text } }],
      ["cwd", { cwd: text }],
    ] as const) {
      const error = failure(() => parse({ ...document, params: { x: { type: "string" } } }));
      expect(error.message).toContain(`${field}: unknown placeholder ${text}`);
      expect(error.hint).toContain("agent_id, params.x");
    }
  });

  it.each([
    "a; touch pwned",
    "$(id) `id` *",
    "--log-file=x",
    "{{agent_id}} {{params.x}}",
    "$HOME ~ %d",
    "a\nb",
    "'\"\\",
  ])("the value %j stays as it is, one argument, looked at once", (value) => {
    expect(expand("[{{params.x}}]", { x: value })).toBe(`[${value}]`);
  });

  it.each([
    [7, "7"],
    [false, "false"],
    [null, ""],
    [undefined, ""],
    [{ a: [1] }, '{"a":[1]}'],
    ["$&$1$$", "$&$1$$"],
  ])("the value %j becomes %j", (value, text) => {
    expect(expand("{{params.x}}", { x: value })).toBe(text);
  });

  it("are all replaced, and nothing else", () => {
    expect(expand("{{params.a}}-{{agent_id}}-{{params.b}} {x} {{}} }}{{", { a: 1, b: 2 })).toBe(
      "1-worker_7-2 {x} {{}} }}{{",
    );
  });

  it("refuse what no argument can carry", () => {
    const nul = failure(() => expand("{{params.x}}", { x: "a\0b" }));
    expect([nul.code, nul.message]).toEqual([
      "params_invalid",
      "params.x holds a NUL character, which no argument can carry",
    ]);
    const large = failure(() => expand("--text={{params.x}}", { x: "é".repeat(100_000) }));
    expect(large.code).toBe("params_invalid");
    expect(large.message).toBe("params.x has 200000 bytes, and an argument can carry 131071");
    expect(large.hint).toContain("OPENSTARRY_PARAMS_FILE");
  });
});
