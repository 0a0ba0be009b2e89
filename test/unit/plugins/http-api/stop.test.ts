import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";
import type { SocketHandover } from "../../../../core/index.js";
import { cleanUp, echo, follow, handFedStream, startApi, tidy } from "../../../helpers/http-api.js";
import { ask, sendRaw, statusOf } from "../../../helpers/http-request.js";
import { waitFor } from "../../../helpers/wait-for.js";

const SUCCESSOR = fileURLToPath(new URL("../../../fixtures/http-api-successor.ts", import.meta.url));

afterEach(tidy);

describe("stopping", () => {
  it("ends streams, lets what is under way finish, and refuses new requests", async () => {
    const { operation } = handFedStream();
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
    const { port, token, host } = await startApi([operation, slow]);
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
    const { port, token, host } = await startApi([wait]);
    const answer = ask({ at: port, path: "/wait", token });
    await waitFor(() => waiting, { what: "the call" });
    await host.stop();
    expect(await answer).toMatchObject({ status: 503, json: { code: "daemon_stopping" } });
  });

  it("idle and silent connections do not hold it up", async () => {
    const { port, token, host } = await startApi([echo({ method: "GET", path: "/here" })]);
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
    const { port, token, host } = await startApi([stuck]);
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
    const { host, port, token, home } = await startApi([here], {}, { sockets });
    const places = [port, join(home, "daemon.sock")];
    const successor = spawn(process.execPath, ["--import", "jiti/register", SUCCESSOR, home, String(port)], {
      stdio: ["pipe", "pipe", "inherit", offered.get("tcp"), offered.get("unix")],
    });
    cleanUp(() => successor.kill("SIGKILL"));
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
