import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { Agent, type OutgoingHttpHeaders, request } from "node:http";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import {
  authenticator,
  type ConfiguredPlugin,
  defineOperation,
  idSchema,
  type Operation,
  operation,
  type Scope,
} from "../../../core/index.js";
import { builtins } from "../../../plugins/builtins.js";
import httpApi from "../../../plugins/http-api/index.js";
import tokens from "../../../plugins/tokens/index.js";
import { createFakeClock } from "../../helpers/fake-clock.js";
import { type Answer, type Ask, ask, sendRaw, statusOf } from "../../helpers/http-request.js";
import { createPluginHost, type PluginHost, type PluginHostOptions } from "../../helpers/plugin-host.js";
import { waitFor } from "../../helpers/wait-for.js";

/** Every operation of the daemon as it is, but answering at once, whatever it is given. */
async function daemonOperations(): Promise<Operation<never>[]> {
  const plugins: ConfiguredPlugin[] = [];
  for (const { load } of builtins.values()) {
    const factory = (await load()).default;
    const provides = factory.definition.provides ?? [];
    if (factory.definition.name !== "http-api" && provides.some(({ id }) => id === operation.id)) {
      plugins.push(factory());
    }
  }
  const home = mkdtempSync(join(tmpdir(), "oh-"));
  const host = createPluginHost({ home, plugins });
  rmSync(home, { recursive: true });
  return [...host.use(operation).values()].map((it) => ({
    ...it,
    input: z.looseObject({}),
    handler: async () => {
      reached.push(it.name);
      return { done: it.name };
    },
  })) as unknown as Operation<never>[];
}

/** The operations whose handlers ran. */
const reached: string[] = [];

const thing = defineOperation({
  name: "fixture.thing",
  summary: "Answers its input.",
  scope: "any",
  input: z.strictObject({
    thing_id: idSchema,
    n: z.number().optional(),
    text: z.string().optional(),
    any: z.unknown().optional(),
  }),
  http: { method: "POST", path: "/things/{thing_id}" },
  handler: async (input) => {
    reached.push("fixture.thing");
    return { input };
  },
});

interface Api {
  host: PluginHost;
  port: number;
  socket: string;
  token: string;
  ask(what: Omit<Ask, "at">): Promise<Answer>;
}

const cleanUp: (() => unknown)[] = [];
const tidy = async () => {
  for (const it of cleanUp.splice(0).reverse()) await it();
};
beforeEach(() => {
  reached.length = 0;
});

async function start(
  operations: Operation<never>[],
  options: Parameters<typeof httpApi>[0] = {},
  more: Partial<PluginHostOptions> = {},
): Promise<Api> {
  const home = mkdtempSync(join(tmpdir(), "oh-"));
  const host = createPluginHost({
    home,
    plugins: [tokens(), httpApi({ port: 0, ...options })],
    operations,
    ...more,
  });
  await host.start();
  cleanUp.push(async () => {
    await host.stop(true);
    rmSync(home, { recursive: true, force: true });
  });
  const urlOf = (name: string) =>
    host.endpoints.find((it) => it.name === name)?.urlFor({ agent_id: "a", run_id: "r" }) ?? "";
  const port = Number(new URL(urlOf("api")).port);
  return {
    host,
    port,
    socket: urlOf("api_socket"),
    token: readFileSync(join(home, "token"), "utf8").trim(),
    ask: (what) => ask({ at: port, ...what }),
  };
}

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
            path: http.path.replace("{agent_id}", agentId).replaceAll(/\{\w+\*?\}/g, "x"),
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
    api = await start(operations, {}, { agents });
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

describe("A: reaching it", () => {
  let api: Api;
  beforeAll(async () => {
    api = await start([thing]);
  });
  afterAll(tidy);
  const raw = (head: string, at: number | string = api.port) =>
    sendRaw(at, `${head}\r\nConnection: close\r\n\r\n`);
  const get = "GET /openapi.json HTTP/1.1";

  it("A1: a foreign Host is refused before the body is read", async () => {
    const socket = connect(api.port, "127.0.0.1");
    socket.write("POST /things/x HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 1000000\r\n\r\n");
    const [answer] = (await once(socket, "data")) as [Buffer];
    expect(statusOf(String(answer))).toBe(403);
    expect(String(answer)).toMatch(/connection: close/i);
    socket.destroy();
  });

  it("A2: two Host headers are refused, in any order and case", async () => {
    const good = `Host: localhost:${api.port}`;
    const auth = `Authorization: Bearer ${api.token}`;
    for (const [first, second] of [
      [good, "Host: evil.example"],
      ["Host: evil.example", good],
      [good, good],
      [good, "hOsT: localhost"],
    ]) {
      expect(statusOf(await raw(`${get}\r\n${first}\r\n${second}\r\n${auth}`))).toBe(400);
    }
    expect(statusOf(await raw(`${get}\r\n${good}\r\n${auth}`))).toBe(200);
  });

  const bad = [
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "[::ffff:127.0.0.1]",
    "0.0.0.0",
    "localhost:99999",
    "localhost:80",
    "localhost:",
    "localhost.",
    "127.0.0.2",
    "127.1",
    "2130706433",
    "user@localhost",
    "localhost, evil.example",
    "localhost/",
    "[::1",
    "::1",
  ];
  it.each(bad)("A4: Host: %s is refused", async (host) => {
    const answer = await api.ask({ path: "/openapi.json", token: api.token, headers: { host } });
    expect(answer).toMatchObject({ status: 403, json: { code: "host_forbidden" } });
  });

  it("A4: the loopback names pass, with our port or none, in any case", async () => {
    for (const name of ["localhost", "LOCALHOST", "127.0.0.1", "[::1]"]) {
      for (const host of [name, `${name}:${api.port}`]) {
        const { status } = await api.ask({ path: "/openapi.json", token: api.token, headers: { host } });
        expect([host, status]).toEqual([host, 200]);
      }
    }
  });

  it("A4: without a Host only the socket is served", async () => {
    const auth = `Authorization: Bearer ${api.token}`;
    expect(statusOf(await raw(`${get}\r\n${auth}`))).toBe(400);
    expect(statusOf(await raw(`${get}\r\nHost:\r\n${auth}`))).toBe(400);
    expect(statusOf(await raw(`GET /openapi.json HTTP/1.0\r\n${auth}`))).toBe(400);
    expect(statusOf(await raw(`${get}\r\n${auth}`, api.socket))).toBe(200);
    expect(statusOf(await raw(`${get}\r\nHost: localhost\r\n${auth}`, api.socket))).toBe(200);
    expect(statusOf(await raw(`${get}\r\nHost: evil.example\r\n${auth}`, api.socket))).toBe(403);
  });

  it("A4: a whole address as the request target is refused", async () => {
    const rest = `Host: localhost\r\nAuthorization: Bearer ${api.token}`;
    for (const target of ["http://evil.example/openapi.json", "http://localhost/openapi.json", "*"]) {
      expect(statusOf(await raw(`OPTIONS ${target} HTTP/1.1\r\n${rest}`))).toBe(400);
    }
  });

  it("A5: what proxies say is not believed, nor logged", async () => {
    const lies = {
      "x-forwarded-host": "evil.example",
      "x-forwarded-for": "203.0.113.9",
      "x-forwarded-proto": "https",
      forwarded: "for=203.0.113.9;host=evil.example",
      "x-real-ip": "203.0.113.9",
    };
    expect((await api.ask({ path: "/openapi.json", token: api.token, headers: lies })).status).toBe(200);
    expect((await api.ask({ path: "/openapi.json", headers: lies })).status).toBe(401);
    expect(api.host.log.at(-1)?.fields).toMatchObject({
      peer: "127.0.0.1",
      route: "/openapi.json",
      status: 401,
    });
    expect(JSON.stringify(api.host.log)).not.toMatch(/evil|203\.0\.113/);
  });

  it("A7: a page of our own origin is served", async () => {
    const headers = { origin: `http://127.0.0.1:${api.port}`, "sec-fetch-site": "same-origin" };
    const own = { ...headers, host: `127.0.0.1:${api.port}` };
    expect((await api.ask({ path: "/openapi.json", token: api.token, headers: own })).status).toBe(200);
    const other = { ...headers, host: `localhost:${api.port}` };
    expect((await api.ask({ path: "/openapi.json", token: api.token, headers: other })).status).toBe(403);
  });
});

describe("B: authentication", () => {
  afterEach(tidy);

  it("B13: no token, an empty one, a wrong scheme, a long one: 401, the very same answer", async () => {
    const api = await start([thing]);
    const values = [
      undefined,
      "",
      "Bearer",
      "Bearer ",
      "Bearer a b",
      "Basic b3A6",
      api.token,
      `Bearer ${"x".repeat(9_000)}`,
    ];
    const answers = await Promise.all(
      values.map((it) =>
        api.ask({ path: "/openapi.json", headers: it === undefined ? {} : { authorization: it } }),
      ),
    );
    for (const { status, text, headers } of answers) {
      expect(status).toBe(401);
      expect(headers["www-authenticate"]).toBe('Bearer realm="openstarry-daemon"');
      expect(text).toBe(answers[0]?.text);
    }
    const huge = await sendRaw(
      api.port,
      `GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${"x".repeat(2 ** 20)}`,
    );
    expect(statusOf(huge)).toBe(431);
  });

  it("B13: two Authorization headers are refused", async () => {
    const api = await start([thing]);
    const auth = `Authorization: Bearer ${api.token}\r\n`;
    const answer = await sendRaw(
      api.port,
      `GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n${auth}${auth}Connection: close\r\n\r\n`,
    );
    expect(statusOf(answer)).toBe(400);
  });

  it("B13: the body of a request without a token is not read", async () => {
    const api = await start([thing]);
    const answer = await api.ask({
      method: "POST",
      path: "/things/x",
      body: "{ not json",
      headers: { "content-type": "application/json" },
    });
    expect(answer.status).toBe(401);
    expect(reached).toEqual([]);
  });

  it("B14: after 20 wrong tokens from an address its wrong ones get 429; its right ones and others do not", async () => {
    const clock = createFakeClock();
    const api = await start([thing], {}, { clock });
    const guess = (token: string) => api.ask({ path: "/openapi.json", token });
    const wrong = `${api.token.slice(0, -1)}!`;
    for (let count = 0; count < 20; count++) expect((await guess(wrong)).status).toBe(401);
    const limited = await guess(wrong);
    expect(limited).toMatchObject({ status: 429, json: { code: "rate_limited", retry_after_s: 60 } });
    expect(limited.headers["retry-after"]).toBe("60");
    // Unknown and public places are no way around it.
    expect((await api.ask({ path: "/no/such", token: wrong })).status).toBe(429);
    expect((await guess(api.token)).status).toBe(200);
    expect((await guess(wrong)).status).toBe(429);
    expect((await api.ask({ path: "/openapi.json" })).status).toBe(401);
    expect(await elsewhere(api, wrong)).toBe(401);
    expect((await ask({ at: api.socket, path: "/openapi.json", token: wrong })).status).toBe(401);
    expect(api.host.log.filter(({ level }) => level === "warn")).toHaveLength(1);
    await clock.advance(60_000);
    expect((await guess(wrong)).status).toBe(401);
  });

  /** A request from another loopback address. */
  async function elsewhere(api: Api, token: string): Promise<number | undefined> {
    const sent = request({
      host: "127.0.0.1",
      port: api.port,
      localAddress: "127.0.0.2",
      path: "/openapi.json",
      agent: false,
      headers: { authorization: `Bearer ${token}` },
    }).end();
    const [response] = await once(sent, "response");
    response.resume();
    return response.statusCode;
  }

  it("B14: 2,000 tries with the last byte wrong never pass, and hold no good client up", async () => {
    const api = await start([thing]);
    const agent = new Agent({ keepAlive: true, maxSockets: 4 });
    cleanUp.push(() => agent.destroy());
    const attempt = (token: string) =>
      new Promise<number | undefined>((resolve, reject) => {
        request(
          {
            port: api.port,
            host: "127.0.0.1",
            agent,
            path: "/openapi.json",
            headers: { authorization: `Bearer ${token}` },
          },
          (response) => response.resume().on("end", () => resolve(response.statusCode)),
        )
          .on("error", reject)
          .end();
      });
    const tries = Array.from({ length: 2_000 }, (_, index) =>
      attempt(`${api.token.slice(0, -1)}${index % 2 ? "-" : "!"}`),
    );
    expect(await attempt(api.token)).toBe(200);
    expect(new Set(await Promise.all(tries))).toEqual(new Set([401, 429]));
  });

  it("B15: a token in the query is none, and is in no log", async () => {
    const api = await start([thing]);
    for (const key of ["token", "access_token", "authorization"]) {
      const answer = await api.ask({ path: `/openapi.json?${key}=${api.token}` });
      expect(answer.status).toBe(401);
      expect(answer.text).not.toContain(api.token);
    }
    const failing = await api.ask({ path: `/no/such?token=${api.token}` });
    expect(failing.text).not.toContain(api.token);
    expect(api.host.log.length).toBeGreaterThan(3);
    expect(JSON.stringify(api.host.log)).not.toContain(api.token);
  });

  it("B17: scopes that a caller claims are not looked at", async () => {
    const operations = await daemonOperations();
    const api = await start(operations, {}, { agents: [{ id: "worker_1" }] });
    const token = api.host.use(authenticator).mint({ agentId: "worker_1", runId: "run-of-worker_1" });
    const answer = await api.ask({
      method: "POST",
      path: "/daemon/stop",
      token,
      headers: { "x-scopes": "operator", "x-principal": "operator" },
      body: { scopes: ["operator"], principal: { kind: "operator" } },
    });
    expect(answer).toMatchObject({ status: 403, json: { code: "forbidden" } });
    expect(reached).toEqual([]);
  });

  it("B18: a run's token is refused as soon as the run is over", async () => {
    const api = await start([thing], {}, { agents: [{ id: "worker_1" }] });
    const token = api.host.use(authenticator).mint({ agentId: "worker_1", runId: "run-of-worker_1" });
    expect((await api.ask({ path: "/openapi.json", token })).status).toBe(200);
    api.host.agents.delete("worker_1");
    expect((await api.ask({ path: "/openapi.json", token })).status).toBe(401);
  });

  it("B20: tokens and keys are in no answer and no log", async () => {
    const api = await start(await daemonOperations(), {}, { agents: [{ id: "worker_1" }] });
    const run = api.host.use(authenticator).mint({ agentId: "worker_1", runId: "run-of-worker_1" });
    const key = readFileSync(join(api.host.home, "run-token.key"), "utf8").trim();
    const seen: string[] = [];
    for (const token of [api.token, run, `${api.token}x`]) {
      for (const path of [
        "/openapi.json",
        "/whoami",
        "/metrics",
        "/no/such",
        "/agents/x/stop",
        "/agents?x=1",
      ]) {
        const answer = await api.ask({ path, token });
        seen.push(answer.text, JSON.stringify(answer.headers));
      }
    }
    const all = seen.join("\n") + JSON.stringify(api.host.log);
    for (const secret of [api.token, run, key]) expect(all).not.toContain(secret);
  });
});

describe("C: parsing and exhaustion", () => {
  afterEach(tidy);

  it("C22: a body over the limit is 413 by its length and by its stream, and the connection ends", async () => {
    const api = await start([thing], { body_limit: "64KiB" });
    const head = `POST /things/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${api.token}\r\nContent-Type: application/json\r\n`;
    const declared = await sendRaw(api.port, `${head}Content-Length: 70000\r\n\r\n{`);
    expect(statusOf(declared)).toBe(413);
    expect(declared).toMatch(/"code":"body_too_large"/);
    const chunk = `4000\r\n${" ".repeat(0x4000)}\r\n`;
    const streamed = await sendRaw(api.port, `${head}Transfer-Encoding: chunked\r\n\r\n${chunk.repeat(6)}`);
    expect(statusOf(streamed)).toBe(413);
    const fits = await api.ask({
      method: "POST",
      path: "/things/x",
      token: api.token,
      body: { text: "x".repeat(60_000) },
    });
    expect(fits.status).toBe(200);
    expect(reached).toEqual(["fixture.thing"]);
  });

  it("C23: slow headers and slow bodies end with the request's time", async () => {
    const api = await start([thing], { request_timeout: "1s" });
    const head = `POST /things/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${api.token}\r\n`;
    const [silent, headers, body] = await Promise.all([
      sendRaw(api.port, ""),
      sendRaw(api.port, head),
      sendRaw(api.port, `${head}Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{`),
    ]);
    expect(silent).toMatch(/^(HTTP\/1\.1 408|$)/);
    expect(statusOf(headers)).toBe(408);
    expect(body).toMatch(/^(HTTP\/1\.1 408|$)/);
    expect(reached).toEqual([]);
  });

  it("C23: a thousand silent sockets do not keep a good client out", async () => {
    const api = await start([thing], { max_connections: 50 });
    const sockets: Socket[] = [];
    cleanUp.push(() => sockets.map((it) => it.destroy()));
    let closed = 0;
    for (let count = 0; count < 1_000; count++) {
      const socket = connect(api.port, "127.0.0.1");
      socket.on("error", () => {});
      socket.on("close", () => closed++);
      sockets.push(socket);
    }
    await waitFor(() => closed >= 950, {
      what: "the sockets over the cap to be closed",
      diagnose: () => closed,
    });
    expect(closed).toBe(950);
    expect((await api.ask({ path: "/openapi.json", token: api.token })).status).toBe(200);
  });

  it("C23: connections at work are not closed for new ones", async () => {
    let release = () => {};
    const slow = defineOperation({
      name: "fixture.slow",
      summary: "Waits.",
      scope: "any",
      input: z.strictObject({}),
      http: { method: "GET", path: "/slow" },
      handler: () =>
        new Promise<unknown>((resolve) => {
          reached.push("slow");
          const before = release;
          release = () => {
            before();
            resolve({ done: true });
          };
        }),
    });
    const api = await start([slow], { max_connections: 2 });
    const both = [1, 2].map(() => api.ask({ path: "/slow", token: api.token }));
    await waitFor(() => reached.length === 2, { what: "both calls" });
    await expect(api.ask({ path: "/slow", token: api.token })).rejects.toThrow(/ECONNRESET|hang up/);
    release();
    expect((await Promise.all(both)).map(({ status }) => status)).toEqual([200, 200]);
  });

  const types = [
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/json\ta",
    'application/json;x="',
    "application/json; charset=utf-16",
    "application/jsonx",
    "application/problem+json",
    "application/json, text/plain",
    "",
    undefined,
  ];
  it.each(types)("C24: a body declared as %j is 415, and nothing is done", async (type) => {
    const api = await start([thing]);
    for (const headers of [{}, { "transfer-encoding": "chunked" }]) {
      const answer = await api.ask({
        method: "POST",
        path: "/things/x",
        token: api.token,
        body: '{"n":1}',
        headers: {
          ...headers,
          ...(type === undefined ? {} : { "content-type": type }),
        } as OutgoingHttpHeaders,
      });
      expect(answer).toMatchObject({ status: 415, json: { code: "media_type_unsupported" } });
    }
    expect(reached).toEqual([]);
  });

  it.each(["application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'])(
    "C24: %s is read",
    async (type) => {
      const api = await start([thing]);
      const headers = { "content-type": type };
      const answer = await api.ask({
        method: "POST",
        path: "/things/x",
        token: api.token,
        body: '{"n":1}',
        headers,
      });
      expect(answer.json).toEqual({ input: { thing_id: "x", n: 1 } });
    },
  );

  const bodies: [string, string | Buffer][] = [
    ["C25: __proto__", '{"n":1,"__proto__":{"polluted":true}}'],
    ["C25: __proto__ further in", '{"any":[{"__proto__":{"polluted":true}}]}'],
    ["C25: an escaped __proto__", '{"any":{"\\u005f_proto__":{"polluted":true}}}'],
    ["C25: constructor.prototype", '{"any":{"constructor":{"prototype":{"polluted":true}}}}'],
    ["C26: an unknown key", '{"other":1}'],
    ["C26: a number as text", '{"n":"7"}'],
    ["C26: a number too large", '{"n":1e999}'],
    ["C26: a number too large where anything goes", '{"any":{"deep":[1e999]}}'],
    ["C26: duplicate keys", '{"n":1,"n":2}'],
    ["C26: duplicate keys further in, one escaped", '{"any":{"a":1,"b":[{}],"\\u0061":2}}'],
    ["C26: 2^53 + 1", '{"any":9007199254740993}'],
    ["C26: half a surrogate pair", '{"text":"\\ud800"}'],
    ["C26: half a surrogate pair in a key", '{"any":{"\\udc00":1}}'],
    ["C26: bytes that are not UTF-8", Buffer.from('{"text":"\xff"}', "latin1")],
    ["C26: UTF-16", Buffer.from('{"n":1}', "utf16le")],
    ["C26: nesting without end", `{"any":${"[".repeat(100_000)}${"]".repeat(100_000)}}`],
    ["C26: nesting beyond 64", `{"any":${"[".repeat(64)}${"]".repeat(64)}}`],
    ["C26: NaN", '{"n":NaN}'],
    ["C26: a comment", '{"n":1/* */}'],
    ["C26: a NUL in an id", '{"thing_id":"x\\u0000"}'],
  ];
  it.each(bodies)("%s in a body is 400", async (_, body) => {
    const api = await start([thing]);
    const headers = { "content-type": "application/json" };
    const answer = await api.ask({ method: "POST", path: "/things/x", token: api.token, body, headers });
    expect(answer).toMatchObject({ status: 400, json: { code: "input_invalid" } });
    expect(reached).toEqual([]);
    expect("polluted" in {}).toBe(false);
  });

  it("C26: what is allowed stays as it is", async () => {
    const api = await start([thing]);
    const any = {
      a: [1, -0.5, 2 ** 53 - 1, "\u{1f600}", '{"a":1,"a":2}'],
      b: { a: { a: {} } },
      constructor: "x",
      prototype: 1,
    };
    const answer = await api.ask({ method: "POST", path: "/things/x", token: api.token, body: { any } });
    expect(answer.json).toEqual({ input: { thing_id: "x", any } });
  });

  const ids = [
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e",
    "%00",
    "%0a",
    "%E2%80%AE",
    ".",
    "..",
    "x".repeat(300),
    "x".repeat(64),
    "",
    "a%20b",
    "%ff",
    "%",
    "-x",
    "x;y",
    "..%5c..",
    "%252e%252e",
    "x%3Fn=1",
  ];
  it.each(ids)("C28: the id %j reaches no handler", async (id) => {
    const api = await start([thing]);
    const answer = await api.ask({ method: "POST", path: `/things/${id}`, token: api.token });
    expect([400, 404]).toContain(answer.status);
    expect(answer.headers["content-type"]).toMatch(/problem\+json/);
    expect(answer.text).not.toMatch(/node:|at .*\(|FST_/);
    expect(reached).toEqual([]);
  });

  it.each(["con", "UPPER", "__proto__", "constructor", "toString"])(
    "C28: the id %s is an id like others",
    async (id) => {
      const api = await start([thing]);
      const answer = await api.ask({ method: "POST", path: `/things/${id}`, token: api.token });
      expect(answer.json["input"]).toHaveProperty("thing_id", id);
      expect((await api.ask({ path: `/${id}`, token: api.token })).status).toBe(404);
    },
  );

  it("C31: a Last-Event-ID or Idempotency-Key beyond all measure is refused before it is used", async () => {
    const api = await start([thing]);
    const post = (headers: OutgoingHttpHeaders) =>
      api.ask({ method: "POST", path: "/things/x", token: api.token, headers });
    expect((await post({ "last-event-id": "x".repeat(256) })).status).toBe(400);
    expect((await post({ "last-event-id": "\u00e9" })).status).toBe(400);
    expect((await post({ "last-event-id": "x".repeat(2 ** 20) }).catch(() => ({ status: 431 }))).status).toBe(
      431,
    );
    expect(reached).toEqual([]);
  });

  it.each(["/ui/..%2f..%2f", "/ui/%2e%2e/", "/.env", "/..", "//openapi.json", "/openapi.json/"])(
    "C34: %s is 404",
    async (path) => {
      const api = await start([thing]);
      expect((await api.ask({ path, token: api.token })).status).toBe(404);
    },
  );

  it("requests that two readers could split differently are refused", async () => {
    const api = await start([thing]);
    const head = `POST /things/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${api.token}\r\nContent-Type: application/json\r\n`;
    for (const rest of [
      "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
      "Content-Length: 2, 2\r\n\r\n{}",
      "Content-Length: -1\r\n\r\n",
      "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ]) {
      expect(statusOf(await sendRaw(api.port, head + rest)), rest).toBe(400);
    }
    expect(reached).toEqual([]);
  });
});
