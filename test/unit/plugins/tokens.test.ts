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
import { authenticator, type Principal, type Scope } from "../../../core/index.js";
import { type AccessLookup, decideAccess } from "../../../plugins/tokens/access.js";
import tokens from "../../../plugins/tokens/index.js";
import { createPluginHost, type FixtureAgent } from "../../helpers/plugin-host.js";

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

/**
 * operator
 * └ master (children: 3 at a time, 2 deep) ─ lead (children: 1, 1 deep) ─ leaf (children: 1, 1 deep)
 *                                          └ done (ended)
 * stranger (no children section)
 */
const TREE: FixtureAgent[] = [
  { id: "master", children: { max: 3, depth: 2 } },
  { id: "lead", parent: "master", children: { max: 1, depth: 1 } },
  { id: "done", parent: "master", state: "exited" },
  { id: "leaf", parent: "lead", children: { max: 1, depth: 1 } },
  { id: "stranger" },
];

/** The decision, with the table of agents that the plugin itself would see. */
function decide(
  principal: Principal,
  scope: Scope,
  input: Record<string, unknown> = {},
  { agents = TREE, operation = "agents.stop" }: { agents?: FixtureAgent[]; operation?: string } = {},
) {
  let lookup: AccessLookup | undefined;
  createPluginHost({
    home,
    agents,
    plugins: [
      {
        options: {},
        definition: {
          ...tokens.definition,
          setup(ctx) {
            lookup = ctx.agents;
          },
        },
      },
    ],
  });
  return decideAccess({ operation, scope, input, principal }, lookup as AccessLookup);
}

const agent = (id: string): Principal => ({
  kind: "agent",
  id: `agent:${id}`,
  agentId: id,
  runId: `run-of-${id}`,
});
const operator: Principal = { kind: "operator", id: "operator" };
const internal: Principal = { kind: "internal", id: "plugin:x" };
const anonymous: Principal = { kind: "anonymous", id: "anonymous" };

describe("B16: who may do what", () => {
  const SCOPES: Scope[] = [
    "public",
    "any",
    "template:read",
    "agent:list",
    "agent:read",
    "agent:report",
    "agent:control",
    "agent:start",
    "operator",
  ];

  it.each(SCOPES)("%s: the operator and the daemon's own parts may", (scope) => {
    for (const target of ["master", "leaf", "nobody"]) {
      expect(decide(operator, scope, { agent_id: target, command: "x" })).toBeUndefined();
      expect(decide(internal, scope, { agent_id: target })).toBeUndefined();
    }
  });

  it.each(SCOPES)("%s: without a token only what is public", (scope) => {
    const denial = decide(anonymous, scope, { agent_id: "master" });
    if (scope === "public") expect(denial).toBeUndefined();
    else expect(denial?.code).toBe("unauthenticated");
  });

  // What the agent "lead" may: itself, its child, its grandchild's place (none), parent, sibling, stranger, nobody.
  const MATRIX: [Scope, Record<string, boolean>][] = [
    ["public", { lead: true, leaf: true, master: true, done: true, stranger: true, nobody: true }],
    ["any", { lead: true, leaf: true, master: true, done: true, stranger: true, nobody: true }],
    ["template:read", { lead: true, leaf: true, master: true, done: true, stranger: true, nobody: true }],
    ["agent:list", { lead: true, leaf: true, master: true, done: true, stranger: true, nobody: true }],
    ["agent:read", { lead: true, leaf: true, master: false, done: false, stranger: false, nobody: false }],
    ["agent:report", { lead: true, leaf: false, master: false, done: false, stranger: false, nobody: false }],
    [
      "agent:control",
      { lead: false, leaf: true, master: false, done: false, stranger: false, nobody: false },
    ],
    ["operator", { lead: false, leaf: false, master: false, done: false, stranger: false, nobody: false }],
  ];
  const rows = MATRIX.flatMap(([scope, row]) =>
    Object.entries(row).map(([target, may]): [Scope, string, boolean] => [scope, target, may]),
  );
  it.each(rows)("agent lead, %s, on %s: %s", (scope, target, may) => {
    const denial = decide(agent("lead"), scope, { agent_id: target });
    expect(denial?.code).toBe(may ? undefined : "forbidden");
    if (denial) expect(denial.hint).toBeTruthy();
  });

  it("a grandchild is below too; an ended child as well", () => {
    for (const target of ["leaf", "done", "lead"]) {
      expect(decide(agent("master"), "agent:read", { agent_id: target })).toBeUndefined();
      expect(decide(agent("master"), "agent:control", { agent_id: target })).toBeUndefined();
    }
  });

  it("an id that exists and one that does not are refused in the same words", () => {
    const words = (target: string) =>
      JSON.stringify(decide(agent("lead"), "agent:control", { agent_id: target })).replaceAll(target, "X");
    expect(words("nobody")).toBe(words("stranger"));
    expect(words("nobody")).toBe(words("done"));
  });

  it("says who may not do what and why, and what it may do instead", () => {
    expect(decide(agent("lead"), "agent:control", { agent_id: "stranger" })).toEqual({
      code: "forbidden",
      detail: "agent lead may not stop stranger: it did not start it, or it is gone",
      hint: "lead may look at and report for itself; it may act on what it started: leaf, and what those started",
    });
    expect(decide(agent("stranger"), "agent:control", { agent_id: "stranger" })?.detail).toBe(
      "agent stranger may not stop itself",
    );
  });

  it.each([[undefined], [7], [["leaf"]], [{ leaf: true }]])("an agent_id of %j is nobody's", (value) => {
    expect(decide(agent("lead"), "agent:read", { agent_id: value })?.code).toBe("forbidden");
  });

  it("a circle among the records does not hang it", () => {
    const circle = [
      { id: "a", parent: "b" },
      { id: "b", parent: "a" },
    ];
    expect(decide(agent("c"), "agent:read", { agent_id: "a" }, { agents: circle })?.code).toBe("forbidden");
  });

  it("a scope that is not known is the operator's", () => {
    expect(decide(agent("lead"), "made:up" as Scope)?.code).toBe("forbidden");
  });
});

describe("starting agents", () => {
  const start = (self: string, input: Record<string, unknown> = {}, agents = TREE) =>
    decide(
      agent(self),
      "agent:start",
      { template_id: "T", ...input },
      { agents, operation: "agents.create" },
    );

  it("needs a children section", () => {
    expect(start("stranger")).toMatchObject({
      code: "forbidden",
      detail: 'agent stranger may not start agents: its template stranger_v1 has no "children" section',
    });
    expect(start("master")).toBeUndefined();
  });

  it("counts children that live or will again, and neither ended ones nor grandchildren", () => {
    const child = (id: string, state: FixtureAgent["state"]) => ({ id, parent: "master", state }) as const;
    const full = [...TREE, child("waiting", "pending"), child("again", "backoff")];
    expect(start("master", {}, [...TREE, child("waiting", "pending")])).toBeUndefined();
    expect(start("master", {}, full)).toMatchObject({
      code: "quota_exceeded",
      hint: expect.stringMatching(/lead, waiting, again/),
    });
    // The same request once more would start nothing new.
    expect(start("master", { agent_id: "again" }, full)).toBeUndefined();
    expect(start("master", { agent_id: "done" }, full)?.code).toBe("quota_exceeded");
  });

  it("counts an ended agent that is to be started again", () => {
    const small = TREE.map((it) => (it.id === "master" ? { ...it, children: { max: 1, depth: 2 } } : it));
    const again = (operation: string, target: string, agents = small) =>
      decide(agent("master"), "agent:control", { agent_id: target }, { agents, operation });
    for (const operation of ["agents.start", "agents.restart"]) {
      expect(again(operation, "done")?.code).toBe("quota_exceeded");
      expect(again(operation, "done", TREE)).toBeUndefined();
      expect(again(operation, "lead")).toBeUndefined();
    }
    expect(again("agents.stop", "done")).toBeUndefined();
    expect(again("agents.delete", "done")).toBeUndefined();
  });

  it("is bounded by the depth that every ancestor allows", () => {
    const free = TREE.filter(({ id }) => id !== "leaf");
    expect(start("lead", {}, free)).toBeUndefined();
    expect(start("leaf")).toMatchObject({
      code: "forbidden",
      detail: expect.stringMatching(/would stand 2 below lead, whose template allows 1/),
      hint: expect.stringMatching(/let lead start it/),
    });
    const flat = free.map((it) => (it.id === "master" ? { ...it, children: { max: 3, depth: 1 } } : it));
    expect(start("lead", {}, flat)?.detail).toMatch(/2 below master, whose template allows 1/);
  });

  it.each(["command", "args", "cwd", "env", "template"])("with %s is the operator's", (field) => {
    expect(start("master", { [field]: { A: "b" } })).toMatchObject({
      code: "forbidden",
      detail: `agent master may start agents from templates only, without "${field}"`,
    });
    expect(start("master", { [field]: undefined })).toBeUndefined();
  });

  it("puts the new one below the agent itself, nowhere else", () => {
    expect(start("master", { parent_id: "stranger" })?.code).toBe("forbidden");
    expect(start("master", { parent_id: "master" })).toBeUndefined();
  });
});
