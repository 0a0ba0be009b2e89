import type { OutgoingHttpHeaders } from "node:http";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { authenticator, type Operation, type Scope } from "../../../../core/index.js";
import { type Api, daemonOperations, reached, startApi, tidy } from "../../../helpers/http-api.js";

beforeEach(() => {
  reached.length = 0;
});

interface Place {
  name: string;
  scope: Scope;
  method: string;
  path: string;
}

/** Every route, its agent filled in. */
function places(operations: readonly Operation<never>[], agentId: string): Place[] {
  return operations.flatMap(({ name, scope, http }) =>
    http
      ? [
          {
            name,
            scope,
            method: http.method,
            path: http.path
              .replace("{agent_id}", agentId)
              .replace("{namespace}", `agent:${agentId}`)
              .replace(/\{(topic|filter)\*\}/, `agents/${agentId}/inbox`)
              .replaceAll(/\{\w+\*?\}/g, "x"),
          },
        ]
      : [],
  );
}

describe("over every route of the daemon", () => {
  let operations: Operation<never>[];
  let api: Api;
  const agents = [
    { id: "lead", children: { max: 9, depth: 3 } },
    { id: "child", parent: "lead" },
    { id: "stranger" },
  ];
  beforeAll(async () => {
    operations = await daemonOperations();
    api = await startApi(operations, {}, { agents });
  });
  afterAll(tidy);

  it("there are routes of every scope", () => {
    const scopes = new Set(places(operations, "x").map(({ scope }) => scope));
    for (const scope of [
      "public",
      "any",
      "agent:list",
      "agent:read",
      "agent:control",
      "agent:start",
      "operator",
    ]) {
      expect(scopes).toContain(scope);
    }
  });

  it("B16: the access matrix", async () => {
    const agentToken = api.host.use(authenticator).mint({ agentId: "lead", runId: "run-of-lead" });
    // Scope: anonymous, the operator, and the agent "lead" on itself, on its child, on a stranger, on nobody.
    const EXPECTED: Record<Scope, number[]> = {
      public: [200, 200, 200, 200, 200, 200],
      any: [401, 200, 200, 200, 200, 200],
      "template:read": [401, 200, 200, 200, 200, 200],
      "agent:list": [401, 200, 200, 200, 200, 200],
      "agent:read": [401, 200, 200, 200, 403, 403],
      "agent:report": [401, 200, 200, 403, 403, 403],
      "agent:control": [401, 200, 403, 200, 403, 403],
      "agent:start": [401, 200, 200, 200, 200, 200],
      "state:read": [401, 200, 200, 200, 403, 403],
      "state:write": [401, 200, 200, 200, 403, 403],
      "bus:publish": [401, 200, 200, 200, 403, 403],
      "bus:subscribe": [401, 200, 200, 200, 403, 403],
      operator: [401, 200, 403, 403, 403, 403],
    };
    const callers: [string | undefined, string][] = [
      [undefined, "child"],
      [api.token, "nobody"],
      [agentToken, "lead"],
      [agentToken, "child"],
      [agentToken, "stranger"],
      [agentToken, "nobody"],
    ];
    const wrong: unknown[] = [];
    for (const [index, [token, target]] of callers.entries()) {
      for (const { name, scope, method, path } of places(operations, target)) {
        reached.length = 0;
        const { status } = await api.ask({ method, path, token });
        const expected = EXPECTED[scope][index];
        const isAllowed = status < 400 || status === 503; // readyz of a fixture
        const same = expected === 200 ? isAllowed : status === expected;
        if (!same || reached.includes(name) !== (expected === 200)) {
          wrong.push({
            name,
            scope,
            target,
            token: token && "given",
            status,
            expected,
            reached: [...reached],
          });
        }
      }
    }
    expect(wrong).toEqual([]);
  });

  const foreign: [string, OutgoingHttpHeaders][] = [
    ["A1: Host: evil.example", { host: "evil.example" }],
    ["A6: Origin of another site", { origin: "https://evil.example" }],
    ["A7: Origin: null", { origin: "null" }],
    ["A7: no Origin, but a cross-site fetch", { "sec-fetch-site": "cross-site" }],
    ["A7: no Origin, but a same-site fetch", { "sec-fetch-site": "same-site" }],
    ["A7: an Origin of another port", { origin: "http://127.0.0.1:1" }],
    ["A7: an empty Origin", { origin: "" }],
  ];
  it.each(foreign)("%s: 403 on every route and method, nothing done, no CORS headers", async (_, headers) => {
    const everywhere = [
      ...places(operations, "child"),
      { path: "/", method: "GET" },
      { path: "/no/such", method: "GET" },
    ];
    for (const { path, method } of everywhere) {
      for (const verb of new Set([method, "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])) {
        const answer = await api.ask({ method: verb, path, token: api.token, headers });
        expect([verb, path, answer.status]).toEqual([verb, path, 403]);
        expect(Object.keys(answer.headers).filter((name) => name.startsWith("access-control"))).toEqual([]);
        if (verb !== "HEAD") expect(answer.json["code"]).toMatch(/^(host|origin)_forbidden$/);
      }
    }
    expect(reached).toEqual([]);
  });

  it("A8: a preflight gets no permission", async () => {
    const answer = await api.ask({
      method: "OPTIONS",
      path: "/agents",
      headers: { origin: `http://127.0.0.1:${api.port}`, "access-control-request-method": "POST" },
    });
    expect(answer.status).toBe(405);
    expect(Object.keys(answer.headers).filter((name) => name.startsWith("access-control"))).toEqual([]);
  });

  it("A9: every answer, of any status, carries the security headers", async () => {
    const answers = await Promise.all([
      api.ask({ path: "/healthz" }),
      api.ask({ path: "/whoami" }),
      api.ask({ path: "/no/such", token: api.token }),
      api.ask({ path: "/agents%", token: api.token }),
      api.ask({ path: "/healthz", headers: { host: "evil" } }),
    ]);
    expect(answers.map(({ status }) => status)).toEqual([200, 401, 404, 400, 403]);
    for (const { headers } of answers) {
      expect(headers).toMatchObject({
        "cache-control": "no-store",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
      });
    }
  });
});
