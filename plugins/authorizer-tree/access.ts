import type { Agent, AgentLookup, Denial, OperationRequest, Scope } from "../../core/index.js";
import { lineage } from "../kit/lineage.js";
import { childrenOf, isBelow } from "./subtree.js";
import { decideOnFilter, decideOnTopic } from "./topics.js";

/** What the decision needs to know of the agents. */
export type AccessLookup = Pick<AgentLookup, "get" | "list" | "template">;

/** Fields of `agent:start` that bypass the templates: the operator's alone. */
const OPERATOR_FIELDS = ["command", "args", "cwd", "env", "template"] as const;

/**
 * Who may do what: `undefined` is yes. Pure: everything it knows stands in its arguments.
 *
 * An operator and the daemon's own parts may do everything. An agent sees itself and what it started,
 * directly or through others, acts on what it started, reports for itself, and starts agents within
 * the `children` rules of its template and of those above it. An id outside its subtree is refused in
 * the same words whether or not it exists.
 */
export function decideAccess(request: OperationRequest, agents: AccessLookup): Denial | undefined {
  const { principal } = request;
  const scope = request.scope as Scope;
  if (scope === "public" || principal.kind === "operator" || principal.kind === "internal") return undefined;
  if (principal.kind === "anonymous") {
    return { code: "unauthenticated", detail: "this needs a token", hint: "send an Authorization header" };
  }
  switch (scope) {
    case "any":
    case "template:read":
    case "agent:list":
      return undefined;
    case "agent:read":
    case "agent:report":
    case "agent:control":
      return decideOnTarget(request, scope, principal.agentId, agents);
    case "state:read":
    case "state:write":
      return decideOnNamespace(request, principal.agentId, agents);
    case "bus:publish":
      return decideOnTopic(request, principal.agentId, agents);
    case "bus:subscribe":
      return decideOnFilter(request, principal.agentId, agents);
    case "agent:start":
      return decideStart(request, principal.agentId, agents);
    default:
      return {
        code: "forbidden",
        detail: `${principal.id} may not do ${request.operation}: it is the operator's alone`,
        hint: `ask the person who runs this daemon for it; ${mayDo(principal.agentId, agents)}`,
      };
  }
}

function decideOnTarget(
  request: OperationRequest,
  scope: "agent:read" | "agent:report" | "agent:control",
  self: string,
  agents: AccessLookup,
): Denial | undefined {
  const target = request.input.agent_id;
  const isSelf = target === self;
  const isBelowSelf = typeof target === "string" && isBelow(self, target, agents);
  if (scope === "agent:read" && (isSelf || isBelowSelf)) return undefined;
  if (scope === "agent:report" && isSelf) return undefined;
  if (scope === "agent:control" && isBelowSelf) return undefined;
  const verb = request.operation.split(".").at(-1);
  if (isSelf) {
    return forbidden(`agent ${self} may not ${verb} itself`, `to end, exit; ${mayDo(self, agents)}`);
  }
  const why = isBelowSelf ? "an agent reports only for itself" : "it did not start it, or it is gone";
  return forbidden(`agent ${self} may not ${verb} ${String(target)}: ${why}`, mayDo(self, agents));
}

/** Every agent has the shared namespace, its own, and those of the agents below it. */
function decideOnNamespace(
  { input, operation }: OperationRequest,
  self: string,
  agents: AccessLookup,
): Denial | undefined {
  const { namespace } = input;
  if (namespace === "shared" || namespace === `agent:${self}`) return undefined;
  const owner = /^agent:(.+)$/.exec(String(namespace))?.[1];
  if (owner !== undefined && isBelow(self, owner, agents)) return undefined;
  return forbidden(
    `agent ${self} may not do ${operation} in ${String(namespace)}`,
    `it has "agent:${self}", "shared", and "agent:ID" of the agents that it started`,
  );
}

function decideStart(request: OperationRequest, self: string, agents: AccessLookup): Denial | undefined {
  const { input } = request;
  const rules = agents.template(self)?.template.children;
  if (!rules) {
    return forbidden(
      `agent ${self} may not start agents: its template ${agents.get(self)?.template_id ?? ""} has no "children" section`,
      "let the agent that started this one start it, or do the work here",
    );
  }
  const field = OPERATOR_FIELDS.find((name) => isGiven(input[name]));
  if (field) {
    return forbidden(
      `agent ${self} may start agents from templates only, without "${field}"`,
      `leave "${field}" out and hand values over in "params"`,
    );
  }
  if (isGiven(input.parent_id) && input.parent_id !== self) {
    return forbidden(`agent ${self} may start agents only below itself`, 'leave "parent_id" out');
  }
  return tooDeep(self, agents);
}

/** A new agent stands one below `self`, two below its parent, and so on up. */
function tooDeep(self: string, agents: AccessLookup): Denial | undefined {
  for (const [index, ancestor] of lineage(self, agents).entries()) {
    const allowed = agents.template(ancestor)?.template.children?.depth ?? 0;
    if (index + 1 > allowed) {
      return forbidden(
        `agent ${self} may not start agents: one of its own would stand ${index + 1} below ${ancestor}, whose template allows ${allowed}`,
        `let ${lineage(self, agents)[1] ?? "the operator"} start it instead`,
      );
    }
  }
  return undefined;
}

function isGiven(value: unknown): boolean {
  if (typeof value === "object" && value !== null) return Object.keys(value).length > 0;
  return value !== undefined;
}

function forbidden(detail: string, hint: string): Denial {
  return { code: "forbidden", detail, hint };
}

/** What an agent may do, in words that it can act on. */
function mayDo(self: string, agents: AccessLookup): string {
  const children = childrenOf(self, agents);
  const own = children.length
    ? `it may act on what it started: ${names(children)}, and what those started`
    : "it has started no agents";
  return `${self} may look at and report for itself; ${own}`;
}

function names(list: readonly Agent[]): string {
  const shown = list.slice(0, 10).map((agent) => agent.agent_id);
  return list.length > shown.length
    ? `${shown.join(", ")} and ${list.length - shown.length} more`
    : shown.join(", ");
}
