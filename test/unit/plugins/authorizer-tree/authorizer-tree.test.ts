import { describe, expect, it } from "vitest";
import type { Principal, Scope } from "../../../../core/index.js";
import { type AccessLookup, decideAccess } from "../../../../plugins/authorizer-tree/access.js";
import authorizerTree from "../../../../plugins/authorizer-tree/index.js";
import { createPluginHost, type FixtureAgent } from "../../../helpers/plugin-host.js";

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
    agents,
    plugins: [
      {
        options: {},
        definition: {
          ...authorizerTree.definition,
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
