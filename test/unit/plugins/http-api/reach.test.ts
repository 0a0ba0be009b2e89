import { once } from "node:events";
import { connect } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Api, startApi, thing, tidy } from "../../../helpers/http-api.js";
import { sendRaw, statusOf } from "../../../helpers/http-request.js";

describe("A: reaching it", () => {
  let api: Api;
  beforeAll(async () => {
    api = await startApi([thing]);
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
