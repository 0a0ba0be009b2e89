import { once } from "node:events";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { type AddressInfo, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Operation } from "../../../../core/index.js";
import {
  type ApiOptions,
  cleanUp,
  createApiHost,
  echo,
  newHome,
  startApi,
  tidy,
  urlOf,
} from "../../../helpers/http-api.js";
import { ask } from "../../../helpers/http-request.js";
import type { PluginHostOptions } from "../../../helpers/plugin-host.js";

let home: string;
beforeEach(() => {
  home = newHome();
});
afterEach(tidy);

const hostOf = (operations: Operation<never>[], options: ApiOptions = {}) =>
  createApiHost(operations, options, { home });
const start = (
  operations: Operation<never>[],
  options: ApiOptions = {},
  more: Partial<PluginHostOptions> = {},
) => startApi(operations, options, { home, ...more });

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
    cleanUp(() => squatter.close());
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
    cleanUp(() => squatter.close());
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
    cleanUp(() => rmSync(join(at, ".."), { recursive: true, force: true }));
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
