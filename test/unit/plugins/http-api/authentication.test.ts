import { once } from "node:events";
import { readFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { authenticator } from "../../../../core/index.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";
import {
  type Api,
  cleanUp,
  daemonOperations,
  reached,
  startApi,
  thing,
  tidy,
} from "../../../helpers/http-api.js";
import { ask, sendRaw, statusOf } from "../../../helpers/http-request.js";

beforeEach(() => {
  reached.length = 0;
});

describe("B: authentication", () => {
  afterEach(tidy);

  it("B13: no token, an empty one, a wrong scheme, a long one: 401, the very same answer", async () => {
    const api = await startApi([thing]);
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
    const api = await startApi([thing]);
    const auth = `Authorization: Bearer ${api.token}\r\n`;
    const answer = await sendRaw(
      api.port,
      `GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n${auth}${auth}Connection: close\r\n\r\n`,
    );
    expect(statusOf(answer)).toBe(400);
  });

  it("B13: the body of a request without a token is not read", async () => {
    const api = await startApi([thing]);
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
    const api = await startApi([thing], {}, { clock });
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
    const api = await startApi([thing]);
    const agent = new Agent({ keepAlive: true, maxSockets: 4 });
    cleanUp(() => agent.destroy());
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
    const api = await startApi([thing]);
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
    const api = await startApi(operations, {}, { agents: [{ id: "worker_1" }] });
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
    const api = await startApi([thing], {}, { agents: [{ id: "worker_1" }] });
    const token = api.host.use(authenticator).mint({ agentId: "worker_1", runId: "run-of-worker_1" });
    expect((await api.ask({ path: "/openapi.json", token })).status).toBe(200);
    api.host.agents.delete("worker_1");
    expect((await api.ask({ path: "/openapi.json", token })).status).toBe(401);
  });

  it("B20: tokens and keys are in no answer and no log", async () => {
    const api = await startApi(await daemonOperations(), {}, { agents: [{ id: "worker_1" }] });
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
