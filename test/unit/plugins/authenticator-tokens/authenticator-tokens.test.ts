import { createHmac } from "node:crypto";
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { authenticator } from "../../../../core/index.js";
import tokens from "../../../../plugins/authenticator-tokens/index.js";
import { createPluginHost, type FixtureAgent } from "../../../helpers/plugin-host.js";

let home: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "tokens-"));
});
afterEach(() => rmSync(home, { recursive: true, force: true }));

const host = (agents: FixtureAgent[] = []) => createPluginHost({ plugins: [tokens()], home, agents });
const tokenFile = () => join(home, "token");
const operatorToken = () => readFileSync(tokenFile(), "utf8").trim();

async function started(agents: FixtureAgent[] = []) {
  const it = host(agents);
  await it.start();
  return { ...it, auth: it.use(authenticator) };
}

describe("the operator's token", () => {
  it.each([0, 0o777])("is made at the first start: 32 bytes, mode 0600 with umask %i, kept", async (mask) => {
    const umask = process.umask(mask);
    try {
      await host().start();
    } finally {
      process.umask(umask);
    }
    expect(Buffer.from(operatorToken(), "base64url")).toHaveLength(32);
    expect(statSync(tokenFile()).mode & 0o777).toBe(0o600);
    expect(statSync(join(home, "run-token.key")).mode & 0o777).toBe(0o600);
    expect(readdirSync(home).sort()).toEqual(["run-token.key", "token"]);
    const first = operatorToken();
    const { auth } = await started();
    expect(operatorToken()).toBe(first);
    expect(auth.authenticate(first)).toEqual({ kind: "operator", id: "operator" });
  });

  it("B14: one wrong byte, a cut, or more behind it is not valid", async () => {
    const { auth } = await started();
    const token = operatorToken();
    const flipped = token.slice(0, -1) + (token.endsWith("A") ? "Q" : "A");
    for (const wrong of [flipped, token.slice(0, -1), `${token}A`, "", ".", "a.b", `${token}.x`]) {
      expect(auth.authenticate(wrong), JSON.stringify(wrong)).toBeUndefined();
    }
  });

  it("B18: a new file counts from the next request on, the old token no longer", async () => {
    const { auth } = await started();
    const old = operatorToken();
    const beside = join(home, "new");
    const fresh = "n".repeat(43);
    writeFileSync(beside, `${fresh}\n`, { mode: 0o600 });
    renameSync(beside, tokenFile());
    expect(auth.authenticate(old)).toBeUndefined();
    expect(auth.authenticate(fresh)).toMatchObject({ kind: "operator" });
  });

  it("nobody is the operator while the file is gone or unsafe, and the daemon says so", async () => {
    const { auth, problems } = await started();
    const token = operatorToken();
    chmodSync(tokenFile(), 0o644);
    expect(auth.authenticate(token)).toBeUndefined();
    expect(problems[0]).toMatch(/0644/);
    chmodSync(tokenFile(), 0o600);
    expect(auth.authenticate(token)).toMatchObject({ kind: "operator" });
    expect(problems).toEqual([]);
    rmSync(tokenFile());
    expect(auth.authenticate(token)).toBeUndefined();
    expect(problems[0]).toMatch(/gone/);
    expect(existsSync(tokenFile())).toBe(false);
  });
});

describe("B19, F56: a file that others could have read or put there", () => {
  const secret = "s".repeat(43);
  const elsewhere = () => join(home, "elsewhere");
  const cases: [string, (path: string) => void, RegExp][] = [
    ["readable by others", (path) => writeFileSync(path, secret, { mode: 0o644 }), /mode is 0644/],
    [
      "writable by the group",
      (path) => {
        writeFileSync(path, secret);
        chmodSync(path, 0o620);
      },
      /mode is 0620/,
    ],
    [
      "a symbolic link",
      (path) => {
        writeFileSync(elsewhere(), secret, { mode: 0o600 });
        symlinkSync(elsewhere(), path);
      },
      /symbolic link/,
    ],
    ["a dangling symbolic link", (path) => symlinkSync(elsewhere(), path), /symbolic link/],
    [
      "a hard link",
      (path) => {
        writeFileSync(elsewhere(), secret, { mode: 0o600 });
        linkSync(elsewhere(), path);
      },
      /hard link/,
    ],
    ["too short", (path) => writeFileSync(path, "short", { mode: 0o600 }), /32 or more/],
    ["empty", (path) => writeFileSync(path, "", { mode: 0o600 }), /32 or more/],
    ["huge", (path) => writeFileSync(path, "s".repeat(5_000), { mode: 0o600 }), /larger/],
  ];
  for (const name of ["token", "run-token.key"]) {
    it.each(cases)(`${name} that is %s is refused, and left as it is`, async (_, put, reason) => {
      const path = join(home, name);
      put(path);
      const before = readdirSync(home).filter((it) => it !== "token");
      await expect(host().start()).rejects.toThrow(reason);
      await expect(host().start()).rejects.toMatchObject({ code: "home_unusable" });
      await expect(host().start()).rejects.toThrow(path);
      await expect(host().start()).rejects.not.toThrow(secret);
      expect(readdirSync(home).filter((it) => it !== "token")).toEqual(before);
    });
  }

  it.runIf(process.geteuid?.() === 0)("one that belongs to another user is refused", async () => {
    writeFileSync(tokenFile(), secret, { mode: 0o600 });
    chownSync(tokenFile(), 65534, 65534);
    await expect(host().start()).rejects.toThrow(/belongs to uid 65534/);
  });
});

describe("the tokens of runs", () => {
  const worker: FixtureAgent = { id: "worker_1" };

  it("are RUN_ID.HMAC-SHA256(key, RUN_ID), and name agent and run", async () => {
    const { auth } = await started([worker]);
    const token = auth.mint({ agentId: "worker_1", runId: "run-of-worker_1" });
    const key = readFileSync(join(home, "run-token.key"), "utf8").trim();
    const mac = createHmac("sha256", key).update("run-of-worker_1").digest("base64url");
    expect(token).toBe(`run-of-worker_1.${mac}`);
    expect(auth.authenticate(token)).toEqual({
      kind: "agent",
      id: "agent:worker_1",
      agentId: "worker_1",
      runId: "run-of-worker_1",
    });
  });

  it("stay valid over a restart of the daemon, and end with their run", async () => {
    const first = await started([worker]);
    const token = first.auth.mint({ agentId: "worker_1", runId: "run-of-worker_1" });
    const { auth, agents } = await started([worker]);
    expect(auth.authenticate(token)).toMatchObject({ agentId: "worker_1" });
    const agent = agents.get("worker_1");
    agents.set("worker_1", { ...agent, run_id: "the-next-run" } as NonNullable<typeof agent>);
    expect(auth.authenticate(token)).toBeUndefined();
    expect(auth.authenticate(auth.mint({ agentId: "worker_1", runId: "the-next-run" }))).toBeDefined();
  });

  it("of another run, another daemon, or with a changed byte are not valid", async () => {
    const { auth } = await started([worker, { id: "worker_2" }]);
    const token = auth.mint({ agentId: "worker_1", runId: "run-of-worker_1" });
    const mac = token.slice(token.lastIndexOf(".") + 1);
    expect(auth.authenticate(`run-of-worker_2.${mac}`)).toBeUndefined();
    expect(auth.authenticate(`${token.slice(0, -1)}_`)).toBeUndefined();
    expect(auth.authenticate("run-of-worker_1.")).toBeUndefined();
    rmSync(join(home, "run-token.key"));
    expect((await started([worker])).auth.authenticate(token)).toBeUndefined();
  });
});
