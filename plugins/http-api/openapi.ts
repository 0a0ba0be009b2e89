import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { defineOperation, type Operation, type StandardSchema } from "../../core/index.js";
import { inputSchema, type JsonSchema } from "./input.js";

type Json = Record<string, unknown>;

const COMPONENTS = "#/components/schemas/";

/** The document as an operation of its own. */
export function openApiOperation(operations: () => Operation[], version: () => string): Operation<never> {
  return defineOperation({
    name: "daemon.openapi",
    summary: "The description of this API in the OpenAPI format.",
    scope: "any",
    input: z.strictObject({}),
    http: { method: "GET", path: "/openapi.json" },
    handler: async () => openApiDocument(operations(), version()),
  });
}

/** An OpenAPI 3.1 document of every operation that has a route. Pure. */
export function openApiDocument(operations: readonly Operation[], version: string): Json {
  const schemas: Record<string, JsonSchema> = { Problem: PROBLEM };
  const paths: Record<string, Json> = {};
  for (const operation of operations) {
    if (!operation.http) continue;
    const path = operation.http.path.replaceAll("*}", "}");
    paths[path] = { ...paths[path], [operation.http.method.toLowerCase()]: describe(operation, schemas) };
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "openstarry-daemon",
      version,
      description:
        "Starts, watches, restarts and ends agents. What a body holds may also be given in the query.",
    },
    paths,
    components: {
      schemas,
      securitySchemes: { token: { type: "http", scheme: "bearer" } },
      responses: {
        Problem: {
          description: "What went wrong, and what to do next (RFC 9457).",
          content: { "application/problem+json": { schema: { $ref: "#/components/schemas/Problem" } } },
        },
      },
    },
    security: [{ token: [] }],
  };
}

const PROBLEM: JsonSchema = {
  type: "object",
  required: ["type", "title", "status", "code", "detail"],
  properties: {
    type: { type: "string" },
    title: { type: "string" },
    status: { type: "integer" },
    code: { type: "string" },
    detail: { type: "string", description: "Who, what, and which value was met." },
    hint: { type: "string", description: "What to do next." },
  },
};

function describe(operation: Operation, schemas: Record<string, JsonSchema>): Json {
  const { http, name, scope, summary } = operation;
  const input = inputSchema(operation.input);
  const root = input && hoist(input, name, schemas);
  const shape = resolveComponent(root, schemas);
  const inPath = [...(http?.path.matchAll(/\{(\w+)\*?\}/g) ?? [])].map((match) => match[1] ?? "");
  const rest = Object.keys(shape?.properties ?? {}).filter((key) => !inPath.includes(key));
  const hasBody = http?.method === "POST" || http?.method === "PUT";
  return {
    operationId: name,
    tags: [name.split(".", 1)[0]],
    summary,
    "x-scope": scope,
    ...(scope === "public" ? { security: [] } : {}),
    parameters: [
      ...inPath.map((key) => parameter("path", key, shape)),
      ...(hasBody ? [] : rest.map((key) => parameter("query", key, shape))),
    ],
    ...(hasBody ? requestBody(shape, rest) : {}),
    responses: {
      [http?.status ? "2XX" : "200"]: success(operation, schemas),
      default: { $ref: "#/components/responses/Problem" },
    },
  };
}

function parameter(place: "path" | "query", key: string, shape: JsonSchema | undefined): Json {
  const schema = shape?.properties?.[key] ?? { type: "string" };
  const required = place === "path" || (shape?.required ?? []).includes(key);
  return { name: key, in: place, required, schema };
}

/** What is not in the path. An input that cannot be told in JSON Schema is a free-form object. */
function requestBody(shape: JsonSchema | undefined, keys: string[]): Json {
  if (shape?.properties && keys.length === 0) return {};
  const required = (shape?.required ?? []).filter((key) => keys.includes(key));
  const properties = Object.fromEntries(keys.map((key) => [key, shape?.properties?.[key]]));
  const schema: Json = shape?.properties ? { ...shape, properties, required } : { type: "object" };
  return { requestBody: { required: required.length > 0, content: { "application/json": { schema } } } };
}

function success({ http, name, output }: Operation, schemas: Record<string, JsonSchema>): Json {
  const schema = output && outputSchema(output);
  const type = http?.contentType ?? "application/json";
  return {
    description: type === "text/event-stream" ? "Server-sent events." : "Done.",
    content: { [type]: schema ? { schema: hoist(schema, `${name}.output`, schemas) } : {} },
  };
}

function outputSchema(schema: StandardSchema): JsonSchema | undefined {
  try {
    return schema["~standard"].jsonSchema?.output({ target: "draft-2020-12" });
  } catch {
    // The validator knows forms that JSON Schema has no words for.
    return undefined;
  }
}

/**
 * A schema for use inside the document: its named parts become components, and its references point
 * there. A part whose name another part has taken gets the operation's name before its own.
 */
function hoist(schema: JsonSchema, owner: string, schemas: Record<string, JsonSchema>): JsonSchema {
  const { $schema: _, $defs = {}, ...body } = schema;
  const parts = Object.entries($defs);
  const names = new Map(parts.map(([name]) => [name, name]));
  // A schema that refers to itself as a whole becomes a component too.
  const isRecursive = JSON.stringify(body).includes('"$ref":"#"');
  names.set("", owner);
  for (const [name, part] of parts) {
    const taken = schemas[name];
    const isForeign = taken && !isDeepStrictEqual(taken, redirect(part, names));
    // zod calls parts that have no name `__schema0` and so on.
    if (isForeign || name.startsWith("__")) names.set(name, `${owner}.${name.replace("__", "")}`);
  }
  for (const [name, part] of parts) schemas[names.get(name) ?? name] = redirect(part, names);
  if (!isRecursive) return redirect(body, names);
  schemas[owner] = redirect(body, names);
  return { $ref: COMPONENTS + owner };
}

/** A copy whose references to `#` and `#/$defs/NAME` point to components. */
function redirect<T>(node: T, names: ReadonlyMap<string, string>): T {
  if (Array.isArray(node)) return node.map((it) => redirect(it, names)) as T;
  if (typeof node !== "object" || node === null) return node;
  const entries = Object.entries(node).map(([key, value]): [string, unknown] => {
    const name =
      key === "$ref" && typeof value === "string" ? /^#(?:\/\$defs\/(.+))?$/.exec(value) : undefined;
    if (!name) return [key, redirect(value, names)];
    return [key, COMPONENTS + (names.get(name[1] ?? "") ?? name[1])];
  });
  return Object.fromEntries(entries) as T;
}

/** The schema itself, or the component that it refers to. */
function resolveComponent(
  schema: JsonSchema | undefined,
  schemas: Readonly<Record<string, JsonSchema>>,
): JsonSchema | undefined {
  return schema?.$ref?.startsWith(COMPONENTS) ? schemas[schema.$ref.slice(COMPONENTS.length)] : schema;
}
