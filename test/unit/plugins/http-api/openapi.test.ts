import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import type { Operation } from "../../../../core/index.js";
import { openApiDocument } from "../../../../plugins/http-api/openapi.js";
import { echo, startApi, tidy } from "../../../helpers/http-api.js";
import { ask } from "../../../helpers/http-request.js";

afterEach(tidy);

describe("the OpenAPI document", () => {
  const Thing = z.strictObject({ id: z.string(), part: z.string().optional() }).meta({ id: "Thing" });
  const Other = z.strictObject({ id: z.int() }).meta({ id: "Thing" });
  const tree = z.object({
    get below() {
      return z.array(tree);
    },
  });
  const operations = [
    echo({ method: "GET", path: "/healthz" }, {}, { name: "a.health", scope: "public" }),
    echo(
      { method: "GET", path: "/things/{id}" },
      { id: z.string(), count: z.int().optional() },
      { output: Thing },
    ),
    echo(
      { method: "POST", path: "/things", status: () => 201 },
      { thing: Thing, note: z.string().optional() },
      { name: "things.create", output: z.object({ items: z.array(Thing) }) },
    ),
    echo({ method: "PUT", path: "/files/{space}/{key*}" }, { space: z.string(), key: z.string(), tree }),
    echo({ method: "DELETE", path: "/files/{space}/{key*}" }, { space: z.string(), key: z.string() }),
    echo({ method: "POST", path: "/stop" }, {}, { name: "x.stop" }),
    echo({ method: "POST", path: "/tree" }, {}, { name: "x.tree", input: tree as never }),
    echo(
      { method: "POST", path: "/free" },
      {},
      { name: "x.free", input: z.object({ at: z.date() }) as never },
    ),
    echo({ method: "GET", path: "/clash" }, {}, { name: "x.clash", output: z.object({ it: Other }) }),
    echo(
      { method: "GET", path: "/events", contentType: "text/event-stream" },
      {},
      { name: "x.events", output: z.date() },
    ),
    echo(undefined, {}, { name: "x.internal" }),
  ] as unknown as Operation[];
  const document = openApiDocument(operations, "1.2.3") as unknown as OpenApi;

  interface OpenApi {
    paths: Record<string, Record<string, OpenApiCall>>;
    components: { schemas: Record<string, unknown>; responses: Record<string, unknown> };
  }
  interface OpenApiCall {
    operationId: string;
    security?: unknown[];
    parameters: { name: string; in: string; required: boolean; schema: unknown }[];
    requestBody?: { required: boolean; content: Record<string, { schema: Record<string, unknown> }> };
    responses: Record<string, { content: Record<string, { schema?: unknown }> }>;
  }

  it("has every route once, and no operation without one", () => {
    const listed = Object.entries(document.paths).flatMap(([path, calls]) =>
      Object.entries(calls).map(
        ([method, { operationId }]) => `${method.toUpperCase()} ${path} ${operationId}`,
      ),
    );
    const wanted = operations.flatMap(({ name, http }) =>
      http ? [`${http.method} ${http.path.replace("*}", "}")} ${name}`] : [],
    );
    expect(listed.sort()).toEqual(wanted.sort());
  });

  it("declares every parameter of a path, and puts the rest into query or body", () => {
    for (const [path, calls] of Object.entries(document.paths)) {
      for (const call of Object.values(calls)) {
        const inPath = call.parameters.filter((it) => it.in === "path").map((it) => it.name);
        expect(inPath).toEqual([...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]));
        expect(call.parameters.every((it) => it.in !== "path" || it.required)).toBe(true);
      }
    }
    const read = document.paths["/things/{id}"]?.["get"];
    expect(read?.parameters.map((it) => [it.in, it.name, it.required])).toEqual([
      ["path", "id", true],
      ["query", "count", false],
    ]);
    const create = document.paths["/things"]?.["post"]?.requestBody;
    expect(create?.required).toBe(true);
    expect(create?.content["application/json"]?.schema).toMatchObject({
      required: ["thing"],
      properties: { thing: { $ref: "#/components/schemas/Thing" }, note: { type: "string" } },
    });
    expect(document.paths["/stop"]?.["post"]?.requestBody).toBeUndefined();
    expect(document.paths["/free"]?.["post"]?.requestBody?.content).toEqual({
      "application/json": { schema: { type: "object" } },
    });
  });

  it("every reference leads somewhere; parts of one name and another shape are kept apart", () => {
    const references = JSON.stringify(document).match(/"\$ref":"[^"]*"/g) ?? [];
    expect(references.length).toBeGreaterThan(5);
    for (const reference of references) {
      const path = reference.slice(8, -1).replace(/^#\//, "").split("/");
      const found = path.reduce<unknown>((node, key) => (node as Record<string, unknown>)?.[key], document);
      expect(found, reference).toBeDefined();
    }
    expect(Object.keys(document.components.schemas).sort()).toEqual(
      ["Problem", "Thing", "fixture.put.schema0", "x.tree", "x.clash.output.Thing"].sort(),
    );
    expect(JSON.stringify(document)).not.toContain("$defs");
  });

  it("tells statuses, streams, problems and what needs no token", () => {
    expect(document.paths["/healthz"]?.["get"]?.security).toEqual([]);
    expect(document.paths["/things"]?.["post"]?.security).toBeUndefined();
    expect(Object.keys(document.paths["/things"]?.["post"]?.responses ?? {})).toEqual(["2XX", "default"]);
    expect(document.paths["/events"]?.["get"]?.responses["200"]?.content).toEqual({
      "text/event-stream": {},
    });
    for (const calls of Object.values(document.paths)) {
      for (const call of Object.values(calls)) {
        expect(call.responses["default"]).toEqual({ $ref: "#/components/responses/Problem" });
      }
    }
  });

  it("is served to whoever has a token, itself included", async () => {
    const { port, token } = await startApi([echo({ method: "GET", path: "/here" })]);
    const served = (await ask({ at: port, path: "/openapi.json", token })).json;
    expect(served).toMatchObject({ openapi: "3.1.0", info: { version: "1.2.3" } });
    expect(Object.keys(served["paths"] as object)).toEqual(["/here", "/openapi.json"]);
    expect((await ask({ at: port, path: "/openapi.json" })).status).toBe(401);
  });
});
