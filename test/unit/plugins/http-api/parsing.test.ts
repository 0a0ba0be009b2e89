import type { OutgoingHttpHeaders } from "node:http";
import { connect, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { defineOperation } from "../../../../core/index.js";
import { cleanUp, reached, startApi, thing, tidy } from "../../../helpers/http-api.js";
import { sendRaw, statusOf } from "../../../helpers/http-request.js";
import { waitFor } from "../../../helpers/wait-for.js";

beforeEach(() => {
  reached.length = 0;
});

describe("C: parsing and exhaustion", () => {
  afterEach(tidy);

  it("C22: a body over the limit is 413 by its length and by its stream, and the connection ends", async () => {
    const api = await startApi([thing], { body_limit: "64KiB" });
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
    const api = await startApi([thing], { request_timeout: "1s" });
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
    const api = await startApi([thing], { max_connections: 50 });
    const sockets: Socket[] = [];
    cleanUp(() => sockets.map((it) => it.destroy()));
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
    const api = await startApi([slow], { max_connections: 2 });
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
    const api = await startApi([thing]);
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
      const api = await startApi([thing]);
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
    const api = await startApi([thing]);
    const headers = { "content-type": "application/json" };
    const answer = await api.ask({ method: "POST", path: "/things/x", token: api.token, body, headers });
    expect(answer).toMatchObject({ status: 400, json: { code: "input_invalid" } });
    expect(reached).toEqual([]);
    expect("polluted" in {}).toBe(false);
  });

  it("C26: what is allowed stays as it is", async () => {
    const api = await startApi([thing]);
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
    const api = await startApi([thing]);
    const answer = await api.ask({ method: "POST", path: `/things/${id}`, token: api.token });
    expect([400, 404]).toContain(answer.status);
    expect(answer.headers["content-type"]).toMatch(/problem\+json/);
    expect(answer.text).not.toMatch(/node:|at .*\(|FST_/);
    expect(reached).toEqual([]);
  });

  it.each(["con", "UPPER", "__proto__", "constructor", "toString"])(
    "C28: the id %s is an id like others",
    async (id) => {
      const api = await startApi([thing]);
      const answer = await api.ask({ method: "POST", path: `/things/${id}`, token: api.token });
      expect(answer.json["input"]).toHaveProperty("thing_id", id);
      expect((await api.ask({ path: `/${id}`, token: api.token })).status).toBe(404);
    },
  );

  it("C31: a Last-Event-ID or Idempotency-Key beyond all measure is refused before it is used", async () => {
    const api = await startApi([thing]);
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
      const api = await startApi([thing]);
      expect((await api.ask({ path, token: api.token })).status).toBe(404);
    },
  );

  it("requests that two readers could split differently are refused", async () => {
    const api = await startApi([thing]);
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
