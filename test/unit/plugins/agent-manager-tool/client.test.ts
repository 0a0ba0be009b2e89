import { chmod, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  type Client,
  type ClientOptions,
  clientFromEnv,
  createClient,
} from "../../../../plugins/agent-manager-tool/client/client.js";
import { type FakeApi, type Route, send, startFakeApi } from "../../../helpers/fake-api.js";

let folder: string;
let api: FakeApi | undefined;
let client: Client | undefined;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "openstarry-client-"));
});
afterEach(async () => {
  client?.close();
  await api?.close();
  api = undefined;
  client = undefined;
  await rm(folder, { recursive: true });
});

async function connect(route: Route, options: ClientOptions = {}): Promise<Client> {
  api = await startFakeApi(route);
  client = createClient({ url: api.url, token: "secret", ...options });
  return client;
}

describe("errors", () => {
  it("rebuilds the daemon's error from its problem document", async () => {
    const it = await connect((_, response) =>
      send(response, 422, {
        type: "urn:openstarry:error:params_invalid",
        title: "The parameters do not fit the template",
        status: 422,
        code: "params_invalid",
        detail: "file: is missing",
        hint: "it takes file (string, required)",
        issues: [{ path: "file", message: "is missing" }],
      }),
    );
    const error = await it.agents.create({ template_id: "T" }).catch((thrown) => thrown);
    expect(error).toMatchObject({
      name: "OpenStarryError",
      code: "params_invalid",
      message: "file: is missing",
      hint: "it takes file (string, required)",
      status: 422,
      data: { issues: [{ path: "file", message: "is missing" }] },
    });
    expect(Object.keys(error.data)).toEqual(["issues"]);
  });

  it("makes an error of an answer that is no problem document", async () => {
    const it = await connect((_, response) => {
      response.writeHead(502, { "content-type": "text/html", "retry-after": "7" });
      response.end("<h1>Bad gateway</h1>");
    });
    await expect(it.whoami()).rejects.toMatchObject({
      code: "internal",
      message: "the daemon answered 502: <h1>Bad gateway</h1>",
      data: { status: 502, retry_after_s: 7 },
    });
  });

  it("says that no daemon runs when nobody listens at the port or the socket", async () => {
    api = await startFakeApi(() => ({}));
    await api.close();
    const byPort = createClient({ url: api.url, token: "t" });
    await expect(byPort.whoami()).rejects.toMatchObject({
      code: "daemon_not_running",
      data: { reached: false },
    });
    const bySocket = createClient({ socket: join(folder, "none.sock"), token: "t" });
    await expect(bySocket.whoami()).rejects.toMatchObject({ code: "daemon_not_running" });
    api = undefined;
  });

  it("says so when the daemon goes away in the middle of its answer", async () => {
    const it = await connect((_, response) => {
      response.writeHead(200, { "content-type": "application/json", "content-length": 1_000 });
      response.write('{"items":[');
      setImmediate(() => response.destroy());
    });
    await expect(it.agents.list()).rejects.toMatchObject({
      code: "daemon_not_running",
      message: "the daemon's answer broke off after 10 bytes",
    });
  });

  it("gives up on an answer that does not come, or not to its end", async () => {
    const it = await connect((request, response) => {
      if (request.path.startsWith("/agents/half")) {
        response.writeHead(200, { "content-type": "application/json" });
        response.write("{");
      }
    });
    const controller = new AbortController();
    const reason = new Error("enough");
    const silent = it.agents.get("silent", { signal: controller.signal });
    const half = it.agents.get("half", { signal: controller.signal });
    while (api?.seen.length !== 2) await new Promise((resolve) => setImmediate(resolve));
    controller.abort(reason);
    await expect(silent).rejects.toBe(reason);
    await expect(half).rejects.toBe(reason);
    await expect(it.agents.get("later", { signal: controller.signal })).rejects.toBe(reason);
    expect(api?.seen).toHaveLength(2);
  });
});

describe("where tokens go", () => {
  const elsewhere = [
    "http://evil.example:5050",
    "http://10.0.0.1",
    "http://127.0.0.1.evil.example",
    "http://127.0.0.1@evil.example",
    "http://user:word@127.0.0.1",
    "https://127.0.0.1",
    "http://0.0.0.0:5050",
    "http://[::ffff:10.0.0.1]",
    "http://127.0.0.1:5050/proxy",
    "file:///etc/passwd",
    "evil",
  ];
  it.each(elsewhere)("refuses to send one to %s", (url) => {
    expect(() => createClient({ url, token: "t" })).toThrowError(
      expect.objectContaining({
        code: "input_invalid",
        message: expect.stringContaining("only sent to this machine"),
      }),
    );
    expect(() => clientFromEnv({ OPENSTARRY_TOKEN_FILE: "/t", OPENSTARRY_API_URL: url })).toThrowError(
      expect.objectContaining({ code: "input_invalid" }),
    );
  });

  it("does not follow a redirect", async () => {
    const it = await connect((_, response) => {
      response.writeHead(302, { location: "http://evil.example/" });
      response.end();
    });
    await expect(it.whoami()).rejects.toMatchObject({
      code: "input_invalid",
      message: "the daemon answered 302",
    });
    expect(api?.seen).toHaveLength(1);
  });

  it("reads the token file for every request, so that a new token counts at once", async () => {
    const tokenFile = join(folder, "token");
    await writeFile(tokenFile, "old\n");
    const it = await connect(
      (request, response) =>
        request.headers.authorization === "Bearer new"
          ? { kind: "operator" }
          : send(response, 401, { code: "unauthenticated", detail: "not valid" }),
      { token: undefined, tokenFile },
    );
    await expect(it.whoami()).rejects.toMatchObject({ code: "unauthenticated" });
    await writeFile(tokenFile, "new\n");
    await expect(it.whoami()).resolves.toEqual({ kind: "operator" });
    await rm(tokenFile);
    await expect(it.whoami()).rejects.toMatchObject({
      code: "unauthenticated",
      message: expect.stringContaining("ENOENT"),
    });
  });

  it("takes the operator's token from its home, over the socket that daemon.json names", async () => {
    const socket = join(folder, "elsewhere.sock");
    await writeFile(join(folder, "daemon.json"), JSON.stringify({ socket }));
    await writeFile(join(folder, "token"), "of the operator", { mode: 0o600 });
    api = await startFakeApi(() => ({ kind: "operator" }), { socket });
    client = createClient({ home: folder });
    await client.whoami();
    expect(api.seen[0]?.headers).toMatchObject({
      authorization: "Bearer of the operator",
      host: "localhost",
    });
  });

  it("does not use an operator's token that others could read or have laid there", async () => {
    const token = join(folder, "token");
    const it = createClient({ home: folder });
    await expect(it.whoami()).rejects.toMatchObject({ code: "daemon_not_running" });
    await writeFile(token, "t");
    await chmod(token, 0o644);
    await expect(it.whoami()).rejects.toMatchObject({
      code: "unauthenticated",
      message: expect.stringContaining("can be read by others (mode 644)"),
    });
    await rm(token);
    await writeFile(join(folder, "target"), "t", { mode: 0o600 });
    await symlink(join(folder, "target"), token);
    await expect(it.whoami()).rejects.toMatchObject({ message: expect.stringContaining("not a plain file") });
  });
});

describe("what an agent finds in its environment", () => {
  it("is enough to send heartbeats, and prefers the socket", async () => {
    const socket = join(folder, "api.sock");
    const tokenFile = join(folder, "run-token");
    await writeFile(tokenFile, "of the run");
    api = await startFakeApi(() => ({}), { socket });
    client = clientFromEnv({
      OPENSTARRY_AGENT_ID: "worker_1",
      OPENSTARRY_TOKEN_FILE: tokenFile,
      OPENSTARRY_API_SOCKET: socket,
      OPENSTARRY_API_URL: "http://127.0.0.1:1",
    });
    await client.ready();
    await client.heartbeat({ status: "reading", progress: 0.5 });
    expect(api.seen).toMatchObject([
      {
        method: "POST",
        path: "/agents/worker_1/heartbeat",
        body: {},
        headers: { authorization: "Bearer of the run" },
      },
      { path: "/agents/worker_1/heartbeat", body: { status: "reading", progress: 0.5 } },
    ]);
  });

  it("is asked for by name where it is incomplete", () => {
    expect(() => clientFromEnv({ OPENSTARRY_TOKEN_FILE: "/t" })).toThrowError(
      /neither OPENSTARRY_API_SOCKET nor/,
    );
  });

  it("is not needed to know whose token it is", async () => {
    const it = await connect(({ path }) => (path === "/whoami" ? { kind: "agent", agent_id: "me" } : {}));
    await it.heartbeat();
    await it.heartbeat();
    expect(api?.seen.map(({ path }) => path)).toEqual([
      "/whoami",
      "/agents/me/heartbeat",
      "/agents/me/heartbeat",
    ]);
  });
});

describe("repeating", () => {
  /** Fails the first requests in turn: by breaking the connection, or with the given problem. */
  function failing(...failures: ("break" | number)[]): Route {
    return (_, response) => {
      const failure = failures.shift();
      if (failure === undefined) return { agent_id: "a" };
      if (failure === "break") return void response.destroy();
      return send(response, failure, {
        code: failure === 503 ? "daemon_stopping" : "internal",
        detail: "no",
      });
    };
  }
  const keys = () => api?.seen.map(({ headers }) => headers["idempotency-key"]);

  it("asks for a new agent again with the same key when no answer came", async () => {
    const it = await connect(failing("break", 503, "break"), { retryForMs: 5_000 });
    await expect(it.agents.create({ template_id: "T" })).resolves.toEqual({ agent_id: "a" });
    expect(keys()).toHaveLength(4);
    expect(new Set(keys()).size).toBe(1);
    await it.agents.create({ template_id: "T" });
    expect(new Set(keys()).size).toBe(2);
    await it.agents.create({ template_id: "T" }, { idempotencyKey: "mine" });
    expect(keys()?.at(-1)).toBe("mine");
  });

  it("does not repeat what failed for good, nor what could happen twice", async () => {
    const it = await connect(failing(500, "break", "break"), { retryForMs: 5_000 });
    await expect(it.agents.create({ template_id: "T" })).rejects.toMatchObject({ code: "internal" });
    await expect(it.agents.restart("a")).rejects.toMatchObject({
      code: "daemon_not_running",
      data: { reached: true },
    });
    await expect(it.agents.signal("a", "SIGUSR1")).rejects.toMatchObject({ code: "daemon_not_running" });
    expect(api?.seen).toHaveLength(3);
  });

  it("tries for so long from the first failure on, however long that took to come", async () => {
    let isFirst = true;
    const it = await connect(
      (_, response) => {
        if (!isFirst) return { agent_id: "a" };
        isFirst = false;
        // The daemon was replaced while the request was under way.
        return void setTimeout(() => response.destroy(), 600);
      },
      { retryForMs: 500 },
    );
    expect(await it.agents.get("a")).toEqual({ agent_id: "a" });
  });

  it("comes to an end", async () => {
    const it = await connect(failing(...Array<"break">(100).fill("break")), { retryForMs: 300 });
    await expect(it.agents.get("a")).rejects.toMatchObject({ code: "daemon_not_running" });
    expect(api?.seen.length).toBeGreaterThan(1);
    expect(api?.seen.length).toBeLessThan(10);
  });

  it("does not repeat anything for a person, who wants to know at once", async () => {
    const it = await connect(failing("break"));
    await expect(it.agents.get("a")).rejects.toMatchObject({ code: "daemon_not_running" });
    expect(api?.seen).toHaveLength(1);
  });

  it("stops when the caller gives up", async () => {
    const it = await connect(failing(...Array<"break">(100).fill("break")), { retryForMs: 60_000 });
    const controller = new AbortController();
    const call = it.agents.create({ template_id: "T" }, { signal: controller.signal });
    while ((api?.seen.length ?? 0) < 2) await new Promise((resolve) => setImmediate(resolve));
    controller.abort();
    await expect(call).rejects.toMatchObject({ name: "AbortError" });
  });
});

describe("waiting", () => {
  it("asks again until the agent has ended", async () => {
    const states = ["starting", "running", "backoff", "exited"];
    const it = await connect(() => ({ agent_id: "a", state: states.shift() }));
    await expect(it.agents.wait("a", { for: "ended" })).resolves.toMatchObject({ state: "exited" });
    expect(api?.seen.map(({ path }) => path)).toEqual(
      Array(4).fill("/agents/a?wait_for=ended&timeout=60000ms"),
    );
  });

  it("for readiness ends with an agent that will not become ready too", async () => {
    const states = ["starting", "running", "starting", "failed"];
    const it = await connect(() => ({ agent_id: "a", state: states.shift() }));
    await expect(it.agents.wait("a", { for: "ready" })).resolves.toMatchObject({ state: "running" });
    await expect(it.agents.wait("a", { for: "ready" })).resolves.toMatchObject({ state: "failed" });
  });

  it("ends at its own timeout", async () => {
    const it = await connect(() => ({ agent_id: "a", state: "running" }));
    await expect(it.agents.wait("a", { for: "ended", timeoutMs: 50 })).rejects.toMatchObject({
      code: "timeout",
      message: "agent a was not ended within 50 ms; it is running",
    });
  });
});

describe("events", () => {
  it("go on after the last one seen when the connection broke", async () => {
    const pieces: [string, "break" | "end" | "stay"][] = [
      ['id: 1\nevent: agent.state\ndata: {"id":1}\n\nid: 2\ndata: {"id":2,"half":', "break"],
      [': open\n\nid: 2\r\nevent: agent.state\r\ndata: {"id":2,\r\ndata: "t":"é"}\r\n\r\n', "end"],
      ['id: 3\ndata: {"id":3}\n\n', "stay"],
    ];
    const it = await connect((_, response) => {
      const [text, then] = pieces.shift() ?? ["", "stay"];
      response.writeHead(200, { "content-type": "text/event-stream" });
      const bytes = Buffer.from(text);
      // In two writes, the cut in the middle of whatever is there.
      response.write(bytes.subarray(0, bytes.length - 7));
      response.write(bytes.subarray(bytes.length - 7), () => {
        if (then === "break") response.destroy();
        if (then === "end") response.end();
      });
    });
    const controller = new AbortController();
    const ids: unknown[] = [];
    for await (const event of it.events({ lastEventId: 0, signal: controller.signal })) {
      ids.push(event);
      if (event.type !== "gap" && event.id === 3) controller.abort();
    }
    expect(ids).toEqual([{ id: 1 }, { id: 2, t: "é" }, { id: 3 }]);
    expect(api?.seen.map(({ headers }) => headers["last-event-id"])).toEqual(["0", "1", "2"]);
  });

  it("end when the daemon refuses, and when it stays away", async () => {
    let answers = 0;
    const it = await connect((_, response) => {
      if (++answers > 1) return void response.destroy();
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.end("id: 1\ndata: {}\n\n");
    });
    const away = it.events({ reconnectForMs: 200 });
    await expect(away.next()).resolves.toMatchObject({ value: {} });
    await expect(away.next()).rejects.toMatchObject({ code: "daemon_not_running" });

    await api?.close();
    const refusing = await connect((_, response) => send(response, 403, { code: "forbidden", detail: "no" }));
    await expect(refusing.events().next()).rejects.toMatchObject({ code: "forbidden" });
    expect(api?.seen).toHaveLength(1);
  });
});

describe("following logs", () => {
  const line = (cursor: string) => ({ run_id: "r", stream: "stdout", text: cursor, cursor });

  it("goes on after the last line, and ends when the agent is deleted", async () => {
    const answers = [["r:1", "r:2"], ["r:3"]];
    const it = await connect((_, response) => {
      const cursors = answers.shift();
      if (!cursors) return send(response, 404, { code: "agent_not_found", detail: "gone" });
      response.writeHead(200, { "content-type": "text/event-stream" });
      const items = cursors.map((id) => `id: ${id}\nevent: line\ndata: ${JSON.stringify(line(id))}\n\n`);
      response.end(items.join(""));
    });
    const lines = [];
    for await (const one of it.agents.followLogs("a", { tail: 10, cursor: "r:0" })) lines.push(one.cursor);
    expect(lines).toEqual(["r:1", "r:2", "r:3"]);
    expect(api?.seen.map(({ headers }) => headers["last-event-id"])).toEqual(["r:0", "r:2", "r:3"]);
    expect(api?.seen[2]?.path).toBe("/agents/a/logs?tail=10&follow=true");
  });

  it("tells of an agent that was never there, and of a stream that failed", async () => {
    const it = await connect((request, response) => {
      if (request.path.startsWith("/agents/none")) {
        return send(response, 404, { code: "agent_not_found", detail: "no such" });
      }
      response.writeHead(200, { "content-type": "text/event-stream" });
      const failure = { code: "slot_empty", detail: "nobody keeps its output", hint: "look elsewhere" };
      response.end(`event: error\ndata: ${JSON.stringify(failure)}\n\n`);
    });
    await expect(it.agents.followLogs("none").next()).rejects.toMatchObject({ code: "agent_not_found" });
    await expect(it.agents.followLogs("a").next()).rejects.toMatchObject({
      code: "slot_empty",
      hint: "look elsewhere",
    });
  });
});
