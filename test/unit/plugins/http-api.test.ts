import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { type IncomingMessage, request } from "node:http";
import { type AddressInfo, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import {
  authenticator,
  defineOperation,
  OpenStarryError,
  type Operation,
  type OperationCall,
  type SocketHandover,
  type StreamItem,
} from "../../../core/index.js";
import httpApi from "../../../plugins/http-api/index.js";
import { openApiDocument } from "../../../plugins/http-api/openapi.js";
import tokens from "../../../plugins/tokens/index.js";
import { createFakeClock } from "../../helpers/fake-clock.js";
import { ask, sendRaw, statusOf } from "../../helpers/http-request.js";
import { createPluginHost, type PluginHost, type PluginHostOptions } from "../../helpers/plugin-host.js";
import { waitFor } from "../../helpers/wait-for.js";

const SUCCESSOR = fileURLToPath(new URL("../../fixtures/http-api-successor.ts", import.meta.url));

const cleanUp: (() => unknown)[] = [];
afterEach(async () => {
  for (const it of cleanUp.splice(0).reverse()) await it();
});

let home: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "oh-"));
  cleanUp.push(() => rmSync(home, { recursive: true, force: true }));
});

type ApiOptions = Parameters<typeof httpApi>[0];

function hostOf(
  operations: Operation<never>[],
  options: ApiOptions = {},
  more: Partial<PluginHostOptions> = {},
) {
  const plugins = [tokens(), httpApi({ port: 0, ...options })];
  return createPluginHost({ home, plugins, operations, ...more });
}

async function start(
  operations: Operation<never>[],
  options: ApiOptions = {},
  more: Partial<PluginHostOptions> = {},
) {
  const host = hostOf(operations, options, more);
  await host.start();
  cleanUp.push(() => host.stop(true));
  return { host, port: portOf(host), token: readFileSync(join(host.home, "token"), "utf8").trim() };
}

const anyAgent = { agent_id: "a", run_id: "r" };
const urlOf = (host: PluginHost, name: string) =>
  host.endpoints.find((it) => it.name === name)?.urlFor(anyAgent) ?? "";
const portOf = (host: PluginHost) => Number(new URL(urlOf(host, "api")).port);

/** Answers its input. */
function echo(http: Operation["http"], shape: z.ZodRawShape = {}, more: Partial<Operation> = {}) {
  return defineOperation({
    name: `fixture.${http?.method.toLowerCase()}`,
    summary: "Answers its input.",
    scope: "any",
    input: z.strictObject(shape),
    http,
    handler: async (input) => ({ input }),
    ...more,
  } as Operation);
}

describe("input", () => {
  const shape = {
    id: z.string().optional(),
    count: z.int().min(0).optional(),
    ratio: z.number().optional(),
    flag: z.boolean().optional(),
    tail: z.union([z.int(), z.literal("all")]).optional(),
    word: z.enum(["yes", "no"]).optional(),
    text: z.string().optional(),
    both: z.union([z.string(), z.int()]).optional(),
  };
  const operations = [
    echo({ method: "POST", path: "/things/{id}" }, shape),
    echo({ method: "GET", path: "/things/{id}" }, shape),
    echo({ method: "PUT", path: "/files/{space}/{key*}" }, { space: z.string(), key: z.string() }),
  ];

  const fits: [string, Record<string, unknown>][] = [
    ["/things/a?count=7&ratio=1.5&flag=true", { id: "a", count: 7, ratio: 1.5, flag: true }],
    ["/things/a?ratio=-2&flag=false", { id: "a", ratio: -2, flag: false }],
    ["/things/a?tail=all", { id: "a", tail: "all" }],
    ["/things/a?tail=20", { id: "a", tail: 20 }],
    ["/things/a?text=7", { id: "a", text: "7" }],
    ["/things/a?both=7", { id: "a", both: "7" }],
    ["/things/a?word=yes&text=a+b%20c%26", { id: "a", word: "yes", text: "a b c&" }],
    ["/things/a?text=", { id: "a", text: "" }],
    ["/things/a%2Fb", { id: "a/b" }],
    ["/things/a%252e", { id: "a%2e" }],
  ];
  it.each(fits)("%s is read by the schema's types", async (path, input) => {
    const { port, token } = await start(operations);
    expect((await ask({ at: port, path, token })).json).toEqual({ input });
  });

  const bad: [string, RegExp][] = [
    ["/things/a?count=1e3", /count/],
    ["/things/a?count=07", /count/],
    ["/things/a?count=1.5", /count/],
    ["/things/a?count=", /count/],
    ["/things/a?count=9007199254740993", /count/],
    ["/things/a?flag=1", /flag/],
    ["/things/a?flag", /flag/],
    ["/things/a?tail=ALL", /tail/],
    ["/things/a?cuont=1", /unknown key "cuont" \(did you mean "count"\?\)/],
    ["/things/a?count=1&count=1", /"count" is in the query more than once/],
    ["/things/a?text=%ff", /malformed/],
    ["/things/a?text=%", /malformed/],
    ["/things/a?id=b", /"id" has two different values/],
    ["/things/a?__proto__=b", /__proto__/],
  ];
  it.each(bad)("%s is refused", async (path, detail) => {
    const { port, token } = await start(operations);
    const answer = await ask({ at: port, path, token });
    expect(answer).toMatchObject({ status: 400, json: { code: "input_invalid" } });
    expect(answer.json["detail"]).toMatch(detail);
  });

  it("joins path, query and body, and refuses two values for one key", async () => {
    const { port, token } = await start(operations);
    const post = (path: string, body: unknown) => ask({ at: port, method: "POST", path, token, body });
    expect((await post("/things/a?flag=true", { id: "a", count: 2 })).json).toEqual({
      input: { id: "a", count: 2, flag: true },
    });
    expect((await post("/things/a", { id: "b" })).json["detail"]).toMatch(/"id" has two different values/);
    expect((await post("/things/a?count=2", { count: 3 })).status).toBe(400);
    expect((await post("/things/a", { count: "2" })).status).toBe(400);
  });

  it("a path's rest keeps its slashes", async () => {
    const { port, token } = await start(operations);
    const answer = await ask({ at: port, method: "PUT", path: "/files/s/a/b%2Fc/d", token });
    expect(answer.json).toEqual({ input: { space: "s", key: "a/b/c/d" } });
  });

  it("a body is a JSON object; none at all is an empty one", async () => {
    const { port, token } = await start(operations);
    const post = (body?: string) =>
      ask({
        at: port,
        method: "POST",
        path: "/things/a",
        token,
        body,
        headers: { "content-type": "application/json" },
      });
    expect((await post()).json).toEqual({ input: { id: "a" } });
    expect((await post("")).json).toEqual({ input: { id: "a" } });
    for (const body of ["[]", "7", '"x"', "null", "{", '{"a":1}x', "\ufeff{}"]) {
      expect(await post(body), body).toMatchObject({ status: 400, json: { code: "input_invalid" } });
    }
    expect((await post('{"secret-text": nonsense')).text).not.toContain("secret-text");
  });
});

describe("answers", () => {
  it("carry the operation's status and content type; nothing is 204", async () => {
    const plain = { contentType: "text/plain; charset=utf-8" };
    const { port, token } = await start([
      echo({ method: "POST", path: "/made", status: () => 201 }),
      echo({ method: "DELETE", path: "/made" }, {}, { name: "x.none", handler: async () => undefined }),
      echo({ method: "GET", path: "/text", ...plain }, {}, { name: "x.text", handler: async () => "olé\n" }),
      echo({ method: "GET", path: "/word" }, {}, { name: "x.word", handler: async () => "word" }),
      echo(
        { method: "GET", path: "/bytes", ...plain },
        {},
        { name: "x.bytes", handler: async () => Buffer.from("b") },
      ),
    ]);
    expect(await ask({ at: port, method: "POST", path: "/made", token })).toMatchObject({
      status: 201,
      headers: { "content-type": "application/json; charset=utf-8" },
    });
    expect(await ask({ at: port, method: "DELETE", path: "/made", token })).toMatchObject({
      status: 204,
      text: "",
    });
    expect(await ask({ at: port, path: "/text", token })).toMatchObject({
      status: 200,
      text: "olé\n",
      headers: { "content-type": "text/plain; charset=utf-8" },
    });
    expect((await ask({ at: port, path: "/word", token })).json).toBe("word");
    expect((await ask({ at: port, path: "/bytes", token })).text).toBe("b");
  });

  it("HEAD is answered for GET alone, without a body", async () => {
    const { port, token } = await start([
      echo({ method: "GET", path: "/read" }),
      echo({ method: "POST", path: "/write" }),
    ]);
    const head = await ask({ at: port, method: "HEAD", path: "/read", token });
    const get = await ask({ at: port, path: "/read", token });
    expect(head).toMatchObject({ status: 200, text: "" });
    expect(head.headers["content-length"]).toBe(get.headers["content-length"]);
    expect((await ask({ at: port, method: "HEAD", path: "/write", token })).status).toBe(405);
  });

  it("errors are problem documents with code and hint", async () => {
    const boom = new OpenStarryError("agent_exists", {
      detail: "there",
      hint: "take it",
      data: { state: "x" },
    });
    const fail = (error: unknown) => ({ handler: () => Promise.reject(error) });
    const { port, token, host } = await start([
      echo({ method: "GET", path: "/own" }, {}, { name: "x.own", ...fail(boom) }),
      echo({ method: "GET", path: "/other" }, {}, { name: "x.other", ...fail(new Error("a secret inside")) }),
    ]);
    const own = await ask({ at: port, path: "/own", token });
    expect(own.status).toBe(409);
    expect(own.headers["content-type"]).toMatch(/^application\/problem\+json/);
    expect(own.json).toEqual({
      type: "urn:openstarry:error:agent_exists",
      title: "An agent of this id exists",
      status: 409,
      code: "agent_exists",
      detail: "there",
      hint: "take it",
      state: "x",
    });
    const other = await ask({ at: port, path: "/other", token });
    expect(other).toMatchObject({ status: 500, json: { code: "internal" } });
    expect(other.text).not.toContain("secret");
    expect(host.log).toContainEqual(expect.objectContaining({ level: "error", message: "a request failed" }));
  });

  it("a wrong address says what is near, a wrong method what is allowed", async () => {
    const { port, token } = await start([
      echo({ method: "GET", path: "/agents" }, {}, { name: "agents.list" }),
      echo({ method: "POST", path: "/agents" }, {}, { name: "agents.create" }),
      echo({ method: "POST", path: "/agents/{agent_id}/stop" }, {}, { name: "agents.stop" }),
    ]);
    const hint = async (path: string) => (await ask({ at: port, path, token })).json["hint"];
    expect(await hint("/agent")).toBe("did you mean /agents?");
    expect(await hint("/agents/worker_1/stopp")).toBe("did you mean /agents/worker_1/stop?");
    expect(await hint("/something/else/entirely")).toBe("GET /openapi.json lists what there is");
    expect(await ask({ at: port, path: "/agents/", token })).toMatchObject({
      status: 404,
      json: { code: "not_found" },
    });
    const wrong = await ask({ at: port, method: "PUT", path: "/agents?x=1", token });
    expect(wrong).toMatchObject({ status: 405, json: { code: "method_not_allowed" } });
    expect(wrong.headers["allow"]).toBe("GET, HEAD, POST");
    for (const method of ["OPTIONS", "PATCH", "TRACE", "PROPFIND"]) {
      const answer = await ask({ at: port, method, path: "/agents/x/stop", token });
      expect([method, answer.status, answer.headers["allow"]]).toEqual([method, 405, "POST"]);
    }
  });

  it("two operations at one place are refused at the start, both named", async () => {
    const clash = [
      echo({ method: "GET", path: "/a/{x}" }, {}, { name: "one.get" }),
      echo({ method: "GET", path: "/a/{y}" }, {}, { name: "two.get" }),
    ];
    await expect(hostOf(clash).start()).rejects.toThrow(/one\.get and two\.get both answer GET \/a\/\{y\}/);
  });
});

describe("what a handler is told", () => {
  it("principal, idempotency key and last event id; keys that are no keys are refused", async () => {
    let seen: OperationCall | undefined;
    const { port, token } = await start([
      echo(
        { method: "POST", path: "/do" },
        {},
        {
          handler: async (_, call) => {
            seen = call;
          },
        },
      ),
    ]);
    const post = (headers: Record<string, string>) =>
      ask({ at: port, method: "POST", path: "/do", token, headers });
    expect((await post({ "idempotency-key": "k-1", "last-event-id": "42" })).status).toBe(204);
    expect(seen).toMatchObject({
      principal: { kind: "operator" },
      idempotencyKey: "k-1",
      lastEventId: "42",
    });
    expect((await post({})).status).toBe(204);
    expect(seen && "idempotencyKey" in seen).toBe(false);
    for (const key of ["", "x".repeat(256), "caf\u00e9", "a\tb"]) {
      expect((await post({ "idempotency-key": key })).status, JSON.stringify(key)).toBe(400);
    }
  });

  it("its signal aborts when the client goes away", async () => {
    let signal: AbortSignal | undefined;
    const { port, token } = await start([
      echo(
        { method: "GET", path: "/wait" },
        {},
        {
          handler: async (_, call) => {
            signal = call.signal;
            await once(call.signal, "abort");
          },
        },
      ),
    ]);
    const sent = request({ port, path: "/wait", headers: { authorization: `Bearer ${token}` } }).end();
    sent.on("error", () => {});
    await waitFor(() => signal, { what: "the call" });
    expect(signal?.aborted).toBe(false);
    sent.destroy();
    await waitFor(() => signal?.aborted, { what: "the abort" });
  });
});

/** A stream that a test feeds by hand. */
function source() {
  const items: (StreamItem | Error | "end")[] = [];
  const sleepers = new Set<() => void>();
  const wake = () => {
    for (const it of sleepers) it();
    sleepers.clear();
  };
  const state = { open: 0, taken: 0 };
  const stream = async function* (signal: AbortSignal): AsyncGenerator<StreamItem> {
    state.open++;
    try {
      signal.addEventListener("abort", wake);
      while (!signal.aborted) {
        const item = items.shift();
        if (item === "end") return;
        if (item instanceof Error) throw item;
        if (item === undefined) {
          await new Promise<void>((resolve) => sleepers.add(resolve));
        } else {
          state.taken++;
          yield item;
        }
      }
    } finally {
      state.open--;
    }
  };
  const feed = (...more: typeof items) => {
    items.push(...more);
    wake();
  };
  const operation = echo(
    { method: "GET", path: "/events" },
    {},
    { name: "x.events", handler: async (_, { signal }) => stream(signal) },
  );
  return { operation, feed, state };
}

interface OpenStream {
  response: IncomingMessage;
  text(): string;
  ended(): boolean;
}

async function follow(port: number, token: string, path = "/events"): Promise<OpenStream> {
  const sent = request({ port, path, agent: false, headers: { authorization: `Bearer ${token}` } }).end();
  cleanUp.push(() => sent.destroy());
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  let text = "";
  let ended = false;
  response.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk;
  });
  response.on("error", () => {});
  response.on("close", () => {
    ended = true;
  });
  return { response, text: () => text, ended: () => ended };
}

describe("streams", () => {
  it("are server-sent events, sent as they come, and end with their source", async () => {
    const { operation, feed, state } = source();
    const { port, token } = await start([operation]);
    const stream = await follow(port, token);
    expect(stream.response.headers["content-type"]).toBe("text/event-stream");
    feed({ id: "1", event: "agent.state", data: { a: 1 } });
    await waitFor(() => stream.text().includes("data"), { what: "the first event" });
    expect(stream.text()).toBe(': open\n\nid: 1\nevent: agent.state\ndata: {"a":1}\n\n');
    feed({ data: "plain" }, "end");
    await waitFor(stream.ended, { what: "the end" });
    expect(stream.text()).toMatch(/data: plain\n\n$/);
    await waitFor(() => state.open === 0, { what: "the source to be closed" });
  });

  it("C30: text with line ends stays one event, whatever it looks like", async () => {
    const { operation, feed } = source();
    const { port, token } = await start([operation]);
    const stream = await follow(port, token);
    feed({ id: "1\n2", event: "a\r\nb", data: "one\n\nevent: forged\r\ndata: x\rend" }, "end");
    await waitFor(stream.ended, { what: "the end" });
    expect(stream.text()).toBe(
      ": open\n\nid: 1 2\nevent: a  b\ndata: one\ndata: \ndata: event: forged\ndata: data: x\ndata: end\n\n",
    );
  });

  it("a source that fails ends with an error event that says no secrets", async () => {
    const { operation, feed } = source();
    const { port, token } = await start([operation]);
    const stream = await follow(port, token);
    feed(new Error("a secret"));
    await waitFor(stream.ended, { what: "the end" });
    expect(stream.text()).toMatch(/event: error\ndata: \{.*"code":"internal"/);
    expect(stream.text()).not.toContain("secret");
  });

  it("a comment every 15 s keeps a quiet one alive", async () => {
    const clock = createFakeClock();
    const { operation } = source();
    const { port, token } = await start([operation], {}, { clock });
    const stream = await follow(port, token);
    await clock.advance(15_000);
    await waitFor(() => stream.text() === ": open\n\n: still here\n\n", {
      what: "one comment",
      diagnose: stream.text,
    });
    await clock.advance(15_000);
    await waitFor(() => stream.text().split("still here").length === 3, { what: "another" });
    expect(stream.ended()).toBe(false);
  });

  it("the source is closed when the client goes away, and for HEAD", async () => {
    const { operation, state } = source();
    const { port, token } = await start([operation]);
    const stream = await follow(port, token);
    await waitFor(() => state.open === 1, { what: "the source" });
    stream.response.destroy();
    await waitFor(() => state.open === 0, { what: "the source to be closed" });
    expect(await ask({ at: port, method: "HEAD", path: "/events", token })).toMatchObject({
      status: 200,
      text: "",
    });
    expect(state.open).toBe(0);
  });

  it("C29: a client that does not read gets a bounded buffer, and is dropped; others go on", async () => {
    const clock = createFakeClock();
    const { operation, feed, state } = source();
    const other = source();
    const quick = { ...other.operation, name: "x.quick", http: { method: "GET" as const, path: "/quick" } };
    const { port, token } = await start([operation, quick], {}, { clock });
    const stuck = request({
      port,
      path: "/events",
      agent: false,
      headers: { authorization: `Bearer ${token}` },
    }).end();
    cleanUp.push(() => stuck.destroy());
    const [response] = (await once(stuck, "response")) as [IncomingMessage];
    response.pause();
    const chunk = "x".repeat(64 * 1_024);
    feed(...Array.from({ length: 2_000 }, () => ({ data: chunk })));
    let last = -1;
    await waitFor(
      () => {
        const still = state.taken === last && state.taken > 0;
        last = state.taken;
        return still;
      },
      { what: "the source to be left alone" },
    );
    // 128 MB were on offer; what the kernel's socket buffers and 64 kB of ours take is far less.
    expect(state.taken).toBeLessThan(400);
    const good = await follow(port, token, "/quick");
    other.feed({ data: "hello" });
    await waitFor(() => good.text().includes("hello"), { what: "the other stream" });
    await clock.advance(31_000);
    await waitFor(() => state.open === 0, { what: "the stuck stream to be dropped" });
    expect(good.ended()).toBe(false);
  });

  it("C29: one token may have so many and no more", async () => {
    const { operation, state } = source();
    const { port, token } = await start([operation], { max_streams: 3 });
    const open = await Promise.all([1, 2, 3].map(() => follow(port, token)));
    const refused = await ask({ at: port, path: "/events", token });
    expect(refused).toMatchObject({ status: 429, json: { code: "too_many_streams" } });
    await waitFor(() => state.open === 3, { what: "three sources", diagnose: () => state });
    open[0]?.response.destroy();
    await waitFor(() => state.open === 2, { what: "one to close" });
    await follow(port, token);
  });

  it("B18: ends when its token is no longer valid", async () => {
    const { operation, state } = source();
    const agents = [{ id: "worker_1" }];
    const { port, token, host } = await start([operation], {}, { agents });
    const ofOperator = await follow(port, token);
    const ofRun = await follow(
      port,
      host.use(authenticator).mint({ agentId: "worker_1", runId: "run-of-worker_1" }),
    );
    host.agents.delete("worker_1");
    await waitFor(ofRun.ended, { what: "the run's stream to end" });
    expect(ofOperator.ended()).toBe(false);
    writeFileSync(join(home, "token"), `${"n".repeat(43)}\n`);
    await waitFor(ofOperator.ended, { what: "the operator's stream to end" });
    await waitFor(() => state.open === 0, { what: "the sources to be closed" });
  });
});

describe("where it listens", () => {
  const nothing = [echo({ method: "GET", path: "/here" })];

  it("says so in endpoints, with one address for every agent", async () => {
    const { host, port, token } = await start(nothing);
    expect(host.endpoints.map(({ name, protocol, variable }) => ({ name, protocol, variable }))).toEqual([
      { name: "api", protocol: "http", variable: undefined },
      { name: "api_socket", protocol: "unix", variable: "OPENSTARRY_API_SOCKET" },
    ]);
    expect(urlOf(host, "api")).toBe(`http://127.0.0.1:${port}`);
    expect(urlOf(host, "api_socket")).toBe(join(home, "daemon.sock"));
    expect(host.endpoints.map((it) => it.health())).toEqual([undefined, undefined]);
    expect((await ask({ at: join(home, "daemon.sock"), path: "/here", token })).status).toBe(200);
    await host.stop();
    expect(host.endpoints.map((it) => it.health())).toEqual(["it does not listen", "it does not listen"]);
  });

  it("port 0 takes a free one, and the same again; another when that is taken", async () => {
    const first = await start(nothing);
    await first.host.stop();
    const second = await start(nothing);
    expect(second.port).toBe(first.port);
    await second.host.stop();
    const squatter = createServer().listen(first.port, "127.0.0.1");
    cleanUp.push(() => squatter.close());
    await once(squatter, "listening");
    const third = await start(nothing);
    expect(third.port).not.toBe(first.port);
    expect(JSON.parse(readFileSync(join(home, "http-api.json"), "utf8"))).toEqual({ port: third.port });
    expect(statSync(join(home, "http-api.json")).mode & 0o777).toBe(0o600);
  });

  it("a damaged memory of the port does not matter", async () => {
    writeFileSync(join(home, "http-api.json"), '{"port": "x"');
    expect((await start(nothing)).port).toBeGreaterThan(0);
  });

  it("A12: a taken port is one clear error, and leaves nothing behind", async () => {
    const squatter = createServer().listen(0, "127.0.0.1");
    cleanUp.push(() => squatter.close());
    await once(squatter, "listening");
    const { port } = squatter.address() as AddressInfo;
    const failed = hostOf(nothing, { port }).start();
    await expect(failed).rejects.toMatchObject({
      code: "port_in_use",
      message: `port ${port} of 127.0.0.1 is taken by another process`,
      hint: expect.stringContaining("--port"),
    });
    expect(existsSync(join(home, "daemon.sock"))).toBe(false);
  });

  const refused: [string, ApiOptions, RegExp][] = [
    ["every interface", { host: "0.0.0.0" }, /host: 0\.0\.0\.0 can be reached from other machines/],
    ["every interface, v6", { host: "::" }, /host: ::/],
    ["a public address", { host: "192.0.2.1" }, /host: 192\.0\.2\.1/],
    ["a name", { host: "example.org" }, /host: expected an IP address/],
    ["remote, without names", { host: "0.0.0.0", allow_remote: true }, /allowed_hosts: name the hosts/],
    ["a bad name", { allowed_hosts: ["http://x/"] }, /allowed_hosts\[0\]/],
    ["an unknown key", { prot: 1 } as ApiOptions, /unknown key "prot" \(did you mean "port"\?\)/],
  ];
  it.each(refused)("A10: %s is refused at the start, naming the setting", (_, options, reason) => {
    expect(() => hostOf(nothing, options)).toThrow(reason);
  });

  it("A10: a remote address is possible when it is asked for in full", async () => {
    const { port, token, host } = await start(nothing, {
      host: "0.0.0.0",
      allow_remote: true,
      allowed_hosts: ["Agents.Example"],
    });
    expect(urlOf(host, "api")).toBe(`http://127.0.0.1:${port}`);
    const status = async (name: string) =>
      (await ask({ at: port, path: "/here", token, headers: { host: name } })).status;
    expect(await status("agents.example")).toBe(200);
    expect(await status(`agents.example:${port}`)).toBe(200);
    expect(await status("agents.example.evil")).toBe(403);
  });

  it.each([["::1"], ["localhost"]])("%s is a loopback address too", async (name) => {
    const { host } = await start(nothing, { host: name });
    expect(urlOf(host, "api")).toMatch(
      name === "::1" ? /^http:\/\/\[::1\]:\d+$/ : /^http:\/\/127\.0\.0\.1:\d+$/,
    );
  });
});

describe("the unix socket", () => {
  const nothing = [echo({ method: "GET", path: "/here" })];
  const path = () => join(home, "daemon.sock");

  it("A11: is the user's alone, whatever the umask, and gone after the stop", async () => {
    const umask = process.umask(0);
    const { host } = await start(nothing).finally(() => process.umask(umask));
    expect(lstatSync(path()).isSocket()).toBe(true);
    expect(lstatSync(path()).mode & 0o777).toBe(0o600);
    await host.stop();
    expect(existsSync(path())).toBe(false);
  });

  it("the one of a dead daemon is replaced, the one of a live daemon is not", async () => {
    const live = createServer((socket) => socket.end());
    live.listen(path());
    await once(live, "listening");
    await expect(hostOf(nothing).start()).rejects.toMatchObject({
      code: "daemon_running",
      message: `somebody listens at ${path()}`,
    });
    expect(lstatSync(path()).isSocket()).toBe(true);
    await leaveStale(live, path());
    const { token } = await start(nothing);
    expect((await ask({ at: path(), path: "/here", token })).status).toBe(200);
  });

  it("F56: something else in its place is refused and left alone", async () => {
    writeFileSync(path(), "precious");
    await expect(hostOf(nothing).start()).rejects.toMatchObject({ code: "home_unusable" });
    expect(readFileSync(path(), "utf8")).toBe("precious");
  });

  it("a path too long for the kernel goes to a folder of its own", async () => {
    const long = join(home, "d".repeat(100));
    mkdirSync(long);
    const { host, token } = await start(nothing, {}, { home: long });
    const at = urlOf(host, "api_socket");
    cleanUp.push(() => rmSync(join(at, ".."), { recursive: true, force: true }));
    expect(at.startsWith(tmpdir())).toBe(true);
    expect(Buffer.byteLength(at)).toBeLessThanOrEqual(107);
    expect(statSync(join(at, "..")).mode & 0o777).toBe(0o700);
    expect((await ask({ at, path: "/here", token })).status).toBe(200);
  });

  it("can be left out", async () => {
    const { host } = await start(nothing, { socket: false });
    expect(existsSync(path())).toBe(false);
    expect(host.endpoints.map(({ name }) => name)).toEqual(["api"]);
  });
});

/** Closes a listening socket and leaves its name, as a killed process does. */
async function leaveStale(server: Server, path: string): Promise<void> {
  server.close();
  await once(server, "close");
  const stale = createServer().listen(`${path}x`);
  await once(stale, "listening");
  renameSync(`${path}x`, path);
  stale.close();
  await once(stale, "close");
}

describe("stopping", () => {
  it("ends streams, lets what is under way finish, and refuses new requests", async () => {
    const { operation } = source();
    let finish: (() => void) | undefined;
    const slow = echo(
      { method: "GET", path: "/slow" },
      {},
      {
        handler: () =>
          new Promise((resolve) => {
            finish = () => resolve({ done: true });
          }),
      },
    );
    const { port, token, host } = await start([operation, slow]);
    const stream = await follow(port, token);
    const answer = ask({ at: port, path: "/slow", token });
    await waitFor(() => finish, { what: "the slow call" });
    const stopped = host.stop();
    await waitFor(stream.ended, { what: "the stream to end" });
    await expect(ask({ at: port, path: "/slow", token })).rejects.toThrow(/ECONNREFUSED/);
    finish?.();
    expect(await answer).toMatchObject({ status: 200, json: { done: true } });
    await stopped;
    await host.stop();
  });

  it("what only waits is told to ask again", async () => {
    let waiting = false;
    const wait = echo(
      { method: "GET", path: "/wait" },
      {},
      {
        handler: async (_, { signal }) => {
          waiting = true;
          await once(signal, "abort");
          signal.throwIfAborted();
        },
      },
    );
    const { port, token, host } = await start([wait]);
    const answer = ask({ at: port, path: "/wait", token });
    await waitFor(() => waiting, { what: "the call" });
    await host.stop();
    expect(await answer).toMatchObject({ status: 503, json: { code: "daemon_stopping" } });
  });

  it("idle and silent connections do not hold it up", async () => {
    const { port, token, host } = await start([echo({ method: "GET", path: "/here" })]);
    const silent = sendRaw(port, "");
    const kept = sendRaw(
      port,
      `GET /here HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${token}\r\n\r\n`,
    );
    const half = sendRaw(port, "GET /here HTTP/1.1\r\nHost: local");
    await waitFor(async () => (await ask({ at: port, path: "/here", token })).status === 200, {
      what: "an answer",
    });
    await host.stop();
    expect(statusOf(await kept)).toBe(200);
    expect(await silent).toBe("");
    expect(await half).toBe("");
  });

  it("at the deadline everything is closed", async () => {
    let called = false;
    const handler = () => {
      called = true;
      return new Promise(() => {});
    };
    const stuck = echo({ method: "GET", path: "/stuck" }, {}, { handler });
    const { port, token, host } = await start([stuck]);
    const answer = ask({ at: port, path: "/stuck", token });
    const broken = expect(answer).rejects.toThrow(/hang up|ECONNRESET/);
    await waitFor(() => called, { what: "the call" });
    await host.stop(true);
    await broken;
  });
});

describe("handing the sockets over", () => {
  it("the successor answers at the same port and path, and the predecessor leaves both alone", async () => {
    const here = echo({ method: "GET", path: "/here" }, {}, { handler: async () => ({ pid: process.pid }) });
    const offered = new Map<string, number>();
    let handedOver = false;
    const sockets: SocketHandover = {
      inherited: () => undefined,
      offer: (name, fd) => offered.set(name, fd),
      handedOver: () => handedOver,
    };
    const { host, port, token } = await start([here], {}, { sockets });
    const places = [port, join(home, "daemon.sock")];
    const successor = spawn(process.execPath, ["--import", "jiti/register", SUCCESSOR, home, String(port)], {
      stdio: ["pipe", "pipe", "inherit", offered.get("tcp"), offered.get("unix")],
    });
    cleanUp.push(() => successor.kill("SIGKILL"));
    const [line] = (await once(successor.stdout as Readable, "data")) as [Buffer];
    expect(String(line).trim()).toBe(`http://127.0.0.1:${port}`);

    handedOver = true;
    await host.stop();
    for (const at of places) {
      expect((await ask({ at, path: "/here", token })).json).toEqual({ pid: successor.pid });
    }
    successor.stdin?.end();
    await once(successor, "exit");
    expect(successor.exitCode).toBe(0);
    expect(existsSync(join(home, "daemon.sock"))).toBe(false);
  });
});

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
    const { port, token } = await start([echo({ method: "GET", path: "/here" })]);
    const served = (await ask({ at: port, path: "/openapi.json", token })).json;
    expect(served).toMatchObject({ openapi: "3.1.0", info: { version: "1.2.3" } });
    expect(Object.keys(served["paths"] as object)).toEqual(["/here", "/openapi.json"]);
    expect((await ask({ at: port, path: "/openapi.json" })).status).toBe(401);
  });
});
