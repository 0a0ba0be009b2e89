import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, test } from "vitest";
import { z } from "zod";
import { systemClock } from "../../../../../core/index.js";
import { privateFolder, writePrivateFile } from "../../../../../plugins/kit/private-files.js";
import { createConnection, type RedisConnection } from "../../../../../plugins/kit/redis/connection.js";
import { translateErrors } from "../../../../../plugins/kit/redis/failures.js";
import { checkRedisOptions, redisFields, targetOf } from "../../../../../plugins/kit/redis/options.js";
import { noRedis, startRedis, type TestRedis } from "../../../../helpers/redis-server.js";
import { waitFor } from "../../../../helpers/wait-for.js";

const schema = z.strictObject(redisFields).superRefine(checkRedisOptions);
const target = (options: z.input<typeof schema>) => targetOf(schema.parse(options));
const wrong = (options: z.input<typeof schema>) =>
  schema.safeParse(options).error?.issues.map(({ path, message }) => `${path}: ${message}`);

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "openstarry-redis-files-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("the server options of Redis plugins", () => {
  it("either managed or url is required, with the options that belong to it", () => {
    expect(wrong({})).toEqual([expect.stringContaining('url: expected either "managed": true')]);
    expect(wrong({ managed: true, url: "redis://h" })).toEqual([
      expect.stringContaining("keep one of the two"),
    ]);
    expect(wrong({ url: "redis://h", eager: true, program: "/bin/x" })).toHaveLength(2);
    expect(wrong({ managed: true, password_file: "/f" })).toHaveLength(1);
    expect(wrong({ url: "redis://:secret@h", password_file: "/f" })).toHaveLength(1);
    expect(wrong({ managed: true, eager: true, program: "/usr/bin/redis-server" })).toBeUndefined();
  });

  it("a URL gives the address, credentials and database", () => {
    expect(target({ url: "redis://h" })).toEqual({
      address: "redis://h",
      options: { host: "h", port: 6379, db: 0 },
    });
    expect(target({ url: "rediss://me:p%40ss@[::1]:7000/3" })).toEqual({
      address: "rediss://[::1]:7000",
      options: { host: "::1", port: 7000, db: 3, username: "me", password: "p@ss", tls: {} },
    });
    expect(target({ url: "unix:///run/redis.sock?db=2&user=me" })).toEqual({
      address: "unix:///run/redis.sock",
      options: { path: "/run/redis.sock", db: 2, username: "me" },
    });
  });

  it("an invalid URL is refused without being quoted", () => {
    for (const url of [
      "h:6379",
      "http://:secret@h",
      "redis://",
      "redis://:secret@h/x",
      "redis://:sec#ret@h",
      "redis://:secret%@h",
      "redis://:secret@h?tls=1",
      "unix://secret/relative",
      "unix:///s?password=secret",
    ]) {
      expect(wrong({ url }), url).toEqual([expect.stringContaining("expected redis://")]);
      expect(String(wrong({ url }))).not.toContain("sec");
    }
  });

  it("the password is read from password_file", () => {
    const file = join(folder, "password");
    expect(() => target({ url: "redis://h", password_file: file })).toThrow("ENOENT");
    writeFileSync(file, "pass word\n");
    expect(target({ url: "redis://me@h", password_file: file }).options).toMatchObject({
      username: "me",
      password: "pass word",
    });
    writeFileSync(file, "secret\nmore\n");
    expect(() => target({ url: "redis://h", password_file: file })).toThrow(
      "does not contain exactly one line",
    );
  });
});

describe("the files of a managed server", () => {
  it("a folder that other users can access is refused", () => {
    const path = join(folder, "data");
    expect(privateFolder(privateFolder(path))).toBe(path);
    expect(statSync(path).mode & 0o777).toBe(0o700);
    chmodSync(path, 0o750);
    expect(() => privateFolder(path)).toThrow("its mode is 0750");
    symlinkSync(tmpdir(), join(folder, "link"));
    expect(() => privateFolder(join(folder, "link"))).toThrow("is no folder");
    expect(() => privateFolder(join(folder, "a", "b"))).toThrow("cannot be made (ENOENT)");
  });

  it("a private file is written only when it changes, and never through a symbolic link", () => {
    const path = join(folder, "conf");
    writePrivateFile(path, "one");
    const { ino, mode } = statSync(path);
    expect(mode & 0o777).toBe(0o600);
    writePrivateFile(path, "one");
    expect(statSync(path).ino).toBe(ino);
    writePrivateFile(path, "two");
    expect(readFileSync(path, "utf8")).toBe("two");
    const victim = join(folder, "victim");
    symlinkSync(victim, join(folder, "link"));
    writePrivateFile(join(folder, "link"), "three");
    expect([existsSync(victim), lstatSync(join(folder, "link")).isFile()]).toEqual([false, true]);
    expect(() => writePrivateFile(join(folder, "no", "f"), "x")).toThrow("cannot be written (ENOENT)");
  });
});

describe.skipIf(noRedis)("a Redis connection", () => {
  let server: TestRedis;
  const open: RedisConnection[] = [];
  beforeEach(async () => {
    server = await startRedis({ requirepass: "correct-horse" });
  });
  afterEach(async () => {
    for (const it of open.splice(0)) it.close();
    await server.stop();
  });

  function connection(password: string | undefined = "correct-horse", answerTimeoutMs?: number) {
    const { address, options } = target({ url: server.url });
    const made = createConnection({
      target: { address, options: { ...options, ...(password === undefined ? {} : { password }) } },
      role: "test",
      clock: systemClock,
      ...(answerTimeoutMs === undefined ? {} : { answerTimeoutMs }),
    });
    open.push(made);
    return made;
  }
  const state = (it: RedisConnection, code: "state_unavailable" | "bus_unavailable" = "state_unavailable") =>
    translateErrors(code, server.url, () => it.redis.get("k"));

  test("a lost connection is reported and made again", async () => {
    const it = connection();
    expect(it.health()).toContain("not connected yet");
    await it.open();
    expect([it.health(), await state(it)]).toEqual([undefined, null]);
    await server.kill();
    await waitFor(() => it.health() !== undefined, { what: "the loss" });
    const asked = performance.now();
    await expect(state(it, "bus_unavailable")).rejects.toMatchObject({ code: "bus_unavailable" });
    expect(performance.now() - asked).toBeLessThan(1_000);
    await waitFor(() => /cannot connect \((ECONNREFUSED|ENOENT)\)/.test(it.health() ?? ""), {
      what: "an attempt",
    });
    await server.start();
    await waitFor(() => it.health() === undefined, { what: "the connection" });
    expect(await state(it)).toBeNull();
  });

  test("commands without an answer reject when the server dies, and are not sent again", async () => {
    const it = connection();
    await it.open();
    process.kill(server.pid(), "SIGSTOP");
    const sent = Array.from({ length: 10 }, () =>
      translateErrors("state_unavailable", "x", () => it.redis.incr("n")),
    );
    const all = Promise.allSettled(sent);
    await server.kill();
    for (const end of await all) {
      expect(end).toMatchObject({
        reason: { code: "state_unavailable", message: "x: connection lost" },
      });
    }
    await server.start();
    await waitFor(() => it.health() === undefined, { what: "the connection" });
    expect(await it.redis.get("n")).toBeNull();
  });

  test("a server that does not answer in time counts as lost", async () => {
    const it = connection(undefined, 300);
    await it.open();
    process.kill(server.pid(), "SIGSTOP");
    await expect(state(it)).rejects.toMatchObject({ code: "state_unavailable" });
    expect(it.health()).toBeDefined();
    process.kill(server.pid(), "SIGCONT");
    await waitFor(() => it.health() === undefined, { what: "the connection" });
  });

  test("a rejected or missing password is reported and never shown", async () => {
    const it = connection("battery-staple");
    await it.open();
    await waitFor(() => /rejects the password/.test(it.health() ?? ""), { what: "the refusal" });
    const error = await state(it).catch((reason) => reason);
    expect(error).toMatchObject({ code: "state_unavailable" });
    expect(
      JSON.stringify([it.health(), error.message, error.hint, error.data, String(error.cause)]),
    ).not.toMatch(/staple|horse/);
    const none = connection("");
    await none.open();
    await waitFor(() => /requires a password/.test(none.health() ?? ""), { what: "the refusal" });
  });

  test("an error of the server does not contain the command's arguments", async () => {
    const it = connection();
    await it.open();
    const call = () => it.redis.call("NO_SUCH_COMMAND", "my-secret");
    const error = await translateErrors("state_unavailable", server.url, call).catch(
      (reason) => reason as Error,
    );
    expect(String(error)).toContain("unknown command");
    expect(String(error) + String((error as Error).cause)).not.toContain("my-secret");
  });
});
