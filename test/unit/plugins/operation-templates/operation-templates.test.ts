import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import {
  definePlugin,
  isOpenStarryError,
  type OpenStarryError,
  type Operation,
  operation,
  type Principal,
} from "../../../../core/index.js";
import { openApiDocument } from "../../../../plugins/http-api/openapi.js";
import { HTTP_STATUSES } from "../../../../plugins/http-api/statuses.js";
import operationTemplates from "../../../../plugins/operation-templates/index.js";
import templatesFile from "../../../../plugins/template-source-file/index.js";
import { allowAll, createTestKernel } from "../../../contract/index.js";

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const OPERATOR: Principal = { kind: "operator", id: "operator" };
const AGENT: Principal = { kind: "agent", id: "agent:a", agentId: "a", runId: "r" };

/** A kernel with `Plain` from a source that cannot be written to, and the files of a home. */
async function setUp({
  files = {},
  writable = true,
}: {
  files?: Record<string, string>;
  writable?: boolean;
} = {}) {
  const home = mkdtempSync(join(tmpdir(), "operation-templates-"));
  cleanups.push(() => rmSync(home, { recursive: true }));
  const folder = join(home, "templates");
  mkdirSync(folder);
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
  const operations = new Map<string, Operation<never>>();
  const spy = definePlugin({
    name: "spy",
    apiVersion: 1,
    requires: [operation],
    options: z.strictObject({}),
    setup: (ctx) => ({
      start() {
        for (const [name, it] of ctx.use(operation)) operations.set(name, it);
      },
    }),
  });
  const kernel = createTestKernel({
    authorizer: allowAll,
    plugins: [...(writable ? [templatesFile()] : []), operationTemplates(), spy()],
    templates: { Plain: { description: "A plain one" } },
    dataDir: home,
  });
  await kernel.start();
  cleanups.push(() => kernel.stop({ agents: "stop", reason: "the test is over" }));
  const ask = (name: string, input: unknown, principal = OPERATOR) => kernel.dispatch(name, input, principal);
  const status = (name: string, output: unknown) => operations.get(name)?.http?.status?.(output as never);
  return { ask, folder, operations, status };
}

async function failure(work: Promise<unknown>): Promise<OpenStarryError> {
  const error = await work.then(
    () => new Error("it did not fail"),
    (reason: unknown) => reason,
  );
  if (!isOpenStarryError(error)) throw error;
  return error;
}

const WORKER = `template_id: Worker_v1
description: Works.
command: node
params:
  question: { type: string }
  top: { type: integer, default: 3 }
requires: [bus]
labels: { team: research }
env: { TOKEN: s3cret, MODE: batch }
`;

describe("templates.list", () => {
  it("tells what an agent can be started from, and what is not valid", async () => {
    const { ask, folder } = await setUp({
      files: { "w.yaml": WORKER, "x.yaml": "template_id: X\nnope: 1\n" },
    });
    expect(await ask("templates.list", {}, AGENT)).toEqual({
      items: [
        {
          template_id: "Plain",
          description: "A plain one",
          revision: expect.any(String),
          origin: "memory",
          params: { type: "object", properties: {}, required: [], additionalProperties: false },
          requires: [],
          labels: {},
        },
        {
          template_id: "Worker_v1",
          description: "Works.",
          revision: expect.stringMatching(/^[0-9a-f]{12}$/),
          origin: join(folder, "w.yaml"),
          params: {
            type: "object",
            properties: { question: { type: "string" }, top: { type: "integer", default: 3 } },
            required: ["question"],
            additionalProperties: false,
          },
          requires: ["bus"],
          labels: { team: "research" },
        },
      ],
      invalid: [
        {
          origin: join(folder, "x.yaml"),
          template_id: "X",
          error: expect.stringContaining('unknown key "nope"'),
        },
      ],
    });
  });
});

describe("templates.get", () => {
  it("answers the document as it was written", async () => {
    const { ask, folder } = await setUp({ files: { "w.yaml": WORKER } });
    expect(await ask("templates.get", { template_id: "Worker_v1" })).toEqual({
      template_id: "Worker_v1",
      revision: expect.stringMatching(/^[0-9a-f]{12}$/),
      origin: join(folder, "w.yaml"),
      document: {
        template_id: "Worker_v1",
        description: "Works.",
        command: "node",
        params: { question: { type: "string" }, top: { type: "integer", default: 3 } },
        requires: ["bus"],
        labels: { team: "research" },
        env: { TOKEN: "s3cret", MODE: "batch" },
      },
    });
  });

  it("shows an agent no values of variables", async () => {
    const { ask } = await setUp({ files: { "w.yaml": WORKER } });
    const answer = await ask("templates.get", { template_id: "Worker_v1" }, AGENT);
    expect(answer).toMatchObject({ document: { env: { TOKEN: "***", MODE: "***" } } });
    expect(JSON.stringify(answer)).not.toContain("s3cret");
  });

  it("is 404 for an unknown one, with what was probably meant", async () => {
    const { ask } = await setUp({ files: { "w.yaml": WORKER } });
    const error = await failure(ask("templates.get", { template_id: "Wroker_v1" }));
    expect([error.code, HTTP_STATUSES[error.code]]).toEqual(["not_found", 404]);
    expect(error.message).toBe('there is no template "Wroker_v1"');
    expect(error.hint).toBe('did you mean "Worker_v1"? there are Plain, Worker_v1');
  });

  it("says what is wrong with one that is not valid", async () => {
    const { ask } = await setUp({ files: { "x.yaml": "template_id: X\ncommand: run\nnope: 1\n" } });
    const error = await failure(ask("templates.get", { template_id: "X" }));
    expect([error.code, HTTP_STATUSES[error.code]]).toEqual(["template_invalid", 422]);
    expect(error.message).toContain('unknown key "nope"');
  });

  it.each(["../x", "a/b", "", "%2e%2e", "x\0"])("refuses the id %j", async (template_id) => {
    const { ask } = await setUp();
    for (const name of ["templates.get", "templates.put", "templates.delete"]) {
      expect((await failure(ask(name, { template_id }))).code).toBe("input_invalid");
    }
  });
});

describe("templates.put", () => {
  const document = { command: "/bin/true", stop: { grace: "30s" } };

  it("makes one, 201, and replaces it, 200", async () => {
    const { ask, folder, status } = await setUp();
    const made = await ask("templates.put", { template_id: "New_v1", ...document });
    expect(made).toEqual({
      template_id: "New_v1",
      revision: expect.any(String),
      origin: join(folder, "New_v1.json"),
      created: true,
    });
    expect(status("templates.put", made)).toBe(201);
    const again = await ask("templates.put", { template_id: "New_v1", ...document, description: "other" });
    expect(again).toMatchObject({ created: false });
    expect(status("templates.put", again)).toBe(200);
    const shown = (await ask("templates.get", { template_id: "New_v1" })) as { document: object };
    expect(shown.document).toEqual({ template_id: "New_v1", ...document, description: "other" });
    // What was shown can be put back.
    expect(await ask("templates.put", shown.document)).toMatchObject({ created: false });
  });

  it.each<[Record<string, unknown>, string]>([
    [{ ...document, comand: "x" }, 'unknown key "comand" (did you mean "command"?)'],
    [{ command: "./run.sh" }, "is relative"],
    [{}, "command: it is missing"],
  ])("refuses %j as template_invalid", async (bad, message) => {
    const { ask, folder } = await setUp();
    const error = await failure(ask("templates.put", { template_id: "New_v1", ...bad }));
    expect([error.code, HTTP_STATUSES[error.code]]).toEqual(["template_invalid", 422]);
    expect(error.message).toContain(message);
    expect(readdirSync(folder)).toEqual([]);
  });

  it("refuses what another source or another file holds", async () => {
    const { ask, folder } = await setUp({ files: { "w.yaml": WORKER } });
    for (const template_id of ["Plain", "Worker_v1"]) {
      for (const name of ["templates.put", "templates.delete"]) {
        const error = await failure(
          ask(name, { template_id, ...(name === "templates.put" ? document : {}) }),
        );
        expect([error.code, HTTP_STATUSES[error.code]]).toEqual(["template_read_only", 409]);
        expect(error.hint).toContain("choose another template_id");
      }
    }
    expect(readdirSync(folder)).toEqual(["w.yaml"]);
  });

  it("says when no source can be written to", async () => {
    const { ask } = await setUp({ writable: false });
    const error = await failure(ask("templates.put", { template_id: "New_v1", ...document }));
    expect(error.code).toBe("template_read_only");
    expect(error.message).toContain("no template source of this daemon can be written to");
  });

  it("is described as a template, and the other answers as what they are", async () => {
    const { operations } = await setUp();
    const api = JSON.parse(JSON.stringify(openApiDocument([...operations.values()] as Operation[], "1")));
    const text = JSON.stringify(api.paths["/templates/{template_id}"].put.requestBody);
    for (const field of ["command", "pass_env", "restart"]) expect(text).toContain(`"${field}"`);
    expect(api.components.schemas.TemplateSummary.properties).toHaveProperty("params");
  });
});

describe("templates.delete", () => {
  it("deletes what was put, valid or not; then it is 404", async () => {
    const { ask, folder } = await setUp();
    await ask("templates.put", { template_id: "A", command: "/bin/true" });
    expect(await ask("templates.delete", { template_id: "A" })).toEqual({ template_id: "A", deleted: true });
    const again = await failure(ask("templates.delete", { template_id: "A" }));
    expect(HTTP_STATUSES[again.code]).toBe(404);
    writeFileSync(join(folder, "B.json"), "{ broken");
    expect(await ask("templates.delete", { template_id: "B" })).toEqual({ template_id: "B", deleted: true });
    expect(readdirSync(folder)).toEqual([]);
  });
});

describe("who may", () => {
  it("read: anybody with a token; write: the operator", async () => {
    const { operations } = await setUp();
    const scopes = Object.fromEntries([...operations].map(([name, { scope }]) => [name, scope]));
    expect(scopes).toMatchObject({
      "templates.list": "template:read",
      "templates.get": "template:read",
      "templates.put": "operator",
      "templates.delete": "operator",
    });
  });
});
