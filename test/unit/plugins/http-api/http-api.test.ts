import { once } from "node:events";
import { request } from "node:http";
import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { OpenStarryError, type OperationCall } from "../../../../core/index.js";
import { createApiHost, echo, startApi, tidy } from "../../../helpers/http-api.js";
import { ask } from "../../../helpers/http-request.js";
import { waitFor } from "../../../helpers/wait-for.js";

afterEach(tidy);

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
    const { port, token } = await startApi(operations);
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
    const { port, token } = await startApi(operations);
    const answer = await ask({ at: port, path, token });
    expect(answer).toMatchObject({ status: 400, json: { code: "input_invalid" } });
    expect(answer.json["detail"]).toMatch(detail);
  });

  it("joins path, query and body, and refuses two values for one key", async () => {
    const { port, token } = await startApi(operations);
    const post = (path: string, body: unknown) => ask({ at: port, method: "POST", path, token, body });
    expect((await post("/things/a?flag=true", { id: "a", count: 2 })).json).toEqual({
      input: { id: "a", count: 2, flag: true },
    });
    expect((await post("/things/a", { id: "b" })).json["detail"]).toMatch(/"id" has two different values/);
    expect((await post("/things/a?count=2", { count: 3 })).status).toBe(400);
    expect((await post("/things/a", { count: "2" })).status).toBe(400);
  });

  it("a path's rest keeps its slashes", async () => {
    const { port, token } = await startApi(operations);
    const answer = await ask({ at: port, method: "PUT", path: "/files/s/a/b%2Fc/d", token });
    expect(answer.json).toEqual({ input: { space: "s", key: "a/b/c/d" } });
  });

  it("a body is a JSON object; none at all is an empty one", async () => {
    const { port, token } = await startApi(operations);
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
    const { port, token } = await startApi([
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
    const { port, token } = await startApi([
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
    const { port, token, host } = await startApi([
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
    const { port, token } = await startApi([
      echo({ method: "GET", path: "/agents" }, {}, { name: "agents.list" }),
      echo({ method: "POST", path: "/agents" }, {}, { name: "agents.create" }),
      echo({ method: "POST", path: "/agents/{agent_id}/stop" }, {}, { name: "agents.stop" }),
    ]);
    const hint = async (path: string, method = "GET") =>
      (await ask({ at: port, method, path, token })).json["hint"];
    expect(await hint("/agent")).toBe("did you mean /agents?");
    expect(await hint("/agents/worker_1/stopp", "POST")).toBe("did you mean /agents/worker_1/stop?");
    // What takes another method is no help.
    expect(await hint("/agents/worker_1/stopp")).toBe("GET /openapi.json lists what there is");
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
    await expect(createApiHost(clash).start()).rejects.toThrow(
      /one\.get and two\.get both answer GET \/a\/\{y\}/,
    );
  });
});

describe("what a handler is told", () => {
  it("principal, idempotency key and last event id; keys that are no keys are refused", async () => {
    let seen: OperationCall | undefined;
    const { port, token } = await startApi([
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
    const { port, token } = await startApi([
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
