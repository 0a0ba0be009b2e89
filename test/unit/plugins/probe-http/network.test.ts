import { createServer, type RequestListener, type Server } from "node:http";
import { type AddressInfo, createServer as createTcpServer, type Server as TcpServer } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { type Probe, probe } from "../../../../core/index.js";
import probeHttp from "../../../../plugins/probe-http/index.js";
import probeTcp from "../../../../plugins/probe-tcp/index.js";
import { createPluginHost } from "../../../helpers/plugin-host.js";
import { type WatchedRun, watchRun } from "../../../helpers/probe-run.js";
import { waitFor } from "../../../helpers/wait-for.js";

const host = createPluginHost({ plugins: [probeHttp(), probeTcp()] });
const http = host.use(probe).get("http") as Probe;
const tcp = host.use(probe).get("tcp") as Probe;

const servers: TcpServer[] = [];
const watched: WatchedRun[] = [];
afterEach(async () => {
  for (const { stop } of watched.splice(0)) stop();
  for (const server of servers.splice(0)) {
    (server as Server).closeAllConnections?.();
    await new Promise((resolve) => server.close(resolve));
  }
});

async function listening(server: TcpServer): Promise<number> {
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

function watching(it: Probe, options: Record<string, unknown>): WatchedRun {
  const run = watchRun(it, "readiness", { interval: "200ms", ...options });
  watched.push(run);
  return run;
}

const firstWord = ({ said }: WatchedRun) => waitFor(() => said[0], { what: "the probe's first word" });

describe("http", () => {
  async function wordAbout(answer: RequestListener, options: Record<string, unknown> = {}) {
    const port = await listening(createServer(answer));
    return { port, word: await firstWord(watching(http, { port, ...options })) };
  }

  it.each([200, 204, 301, 399])("status %i is good", async (status) => {
    const { word } = await wordAbout((_, response) =>
      response.writeHead(status, { location: "/away" }).end(),
    );
    expect(word).toBe("ready");
  });

  it.each([400, 404, 500, 503])("status %i is bad, and named", async (status) => {
    const { word, port } = await wordAbout((_, response) => response.writeHead(status).end(), {
      path: "/up?x=1",
    });
    expect(word).toBe(`starting: GET http://127.0.0.1:${port}/up?x=1 answered ${status}`);
  });

  it("does not follow redirects, and says nothing of the daemon's own", async () => {
    const asked: (string | undefined)[] = [];
    await wordAbout((request, response) => {
      asked.push(request.url, request.headers.authorization, request.headers.cookie);
      response.writeHead(302, { location: "/away" }).end();
    });
    expect(asked).toEqual(["/", undefined, undefined]);
  });

  it("an answer without an end is as good as its status, and is broken off", async () => {
    let closed = false;
    const { word } = await wordAbout((_, response) => {
      response.writeHead(200);
      const pour = setInterval(() => response.write("x".repeat(10_000)), 5);
      response.on("close", () => {
        clearInterval(pour);
        closed = true;
      });
    });
    expect(word).toBe("ready");
    await waitFor(() => closed, { what: "the connection's end" });
  });

  it("a server that says nothing is a miss, and no connection is left", async () => {
    const server = createTcpServer((socket) => socket.on("error", () => {}).resume());
    const port = await listening(server);
    const run = watching(http, { port });
    expect(await firstWord(run)).toBe("starting: no answer within 200ms");
    run.stop();
    const connections = () => new Promise((resolve) => server.getConnections((_, count) => resolve(count)));
    await waitFor(async () => (await connections()) === 0, { what: "no connections" });
  });

  it("what is no HTTP, and nobody at the port", async () => {
    const port = await listening(
      createTcpServer((socket) =>
        socket
          .on("error", () => {})
          .resume()
          .end("220 mail\r\n\r\n"),
      ),
    );
    expect(await firstWord(watching(http, { port }))).toMatch(/^starting: .* was not answered \(HPE_/);
    expect(await firstWord(watching(http, { port: 1 }))).toMatch(/was not answered \(ECONNREFUSED\)$/);
  });
});

describe("tcp", () => {
  it("is ready when somebody accepts", async () => {
    expect(await firstWord(watching(tcp, { port: await listening(createTcpServer()) }))).toBe("ready");
    expect(await firstWord(watching(tcp, { port: 1 }))).toBe(
      "starting: no connection to 127.0.0.1 port 1 (ECONNREFUSED)",
    );
  });
});

describe("what is refused", () => {
  it.each<[string, Record<string, unknown>, RegExp]>([
    ["no port", {}, /port/],
    ["port 0", { port: 0 }, /port: expected a port from 1 to 65535/],
    ["a port too big", { port: "65536" }, /port: expected a port/],
    ["a port that is none", { port: "http" }, /port: expected a port/],
    ["half a port", { port: 80.5 }, /port: expected a port/],
    ["another machine", { port: 80, host: "169.254.169.254" }, /host: expected an address of this machine/],
    ["a name", { port: 80, host: "example.com" }, /host: expected an address/],
    ["a name that looks like an address", { port: 80, host: "127.0.0.1.example.com" }, /host: expected/],
    ["no address of IPv4", { port: 80, host: "127.0.0.256" }, /host: expected/],
    ["a URL for a path", { port: 80, path: "http://example.com/" }, /path: expected a path/],
    ["a line end in a path", { port: 80, path: "/a\r\nHost: b" }, /path: expected a path/],
    ["an unknown option", { port: 80, timeout: "1s" }, /unknown key "timeout"/],
  ])("%s", (_, options, message) => {
    expect(() => watchRun(http, "readiness", options)).toThrow(message);
  });

  it("takes a port that came out of a placeholder, and localhost", () => {
    const { run, stop } = watchRun(http, "readiness", { port: "8080", host: "localhost" });
    stop();
    expect(run.options).toMatchObject({ port: 8080, host: "127.0.0.1" });
  });
});
