import type { AgentLookup, Denial, OperationRequest } from "../../core/index.js";
import { ownerOf, REPLY_TOPICS } from "../kit/topics.js";
import { isBelow } from "./subtree.js";

type Lookup = Pick<AgentLookup, "get">;

/** An agent reads what is shared, its own topics, those of agents below it, and who near it is there. */
export function decideOnFilter(
  { input, operation }: OperationRequest,
  self: string,
  agents: Lookup,
): Denial | undefined {
  const filter = String(input.filter);
  if (filter.split("/")[0] === "shared") return undefined;
  const owner = ownerOf(filter);
  if (owner !== undefined && (owner === self || isBelow(self, owner, agents))) return undefined;
  if (owner !== undefined && filter === `openstarry/presence/${owner}` && isNear(self, owner, agents))
    return undefined;
  return {
    code: "forbidden",
    detail: `agent ${self} may not do ${operation} with ${filter}`,
    hint: `it may read "shared/#", "agents/${self}/#" and "openstarry/events/+/${self}", with ID instead of ${self} for an agent below it, and "openstarry/presence/ID" of its parent and its parent's other agents too`,
  };
}

/** An agent writes to what is shared, to its own topics, and into the inboxes of those near it. */
export function decideOnTopic({ input }: OperationRequest, self: string, agents: Lookup): Denial | undefined {
  const topic = String(input.topic);
  const [first, owner, ...rest] = topic.split("/");
  if (first === "shared" || first === REPLY_TOPICS) return undefined;
  if (first === "agents" && owner === self) return undefined;
  const isInbox = first === "agents" && rest.join("/") === "inbox";
  if (isInbox && owner !== undefined && isNear(self, owner, agents)) return undefined;
  return {
    code: "forbidden",
    detail: `agent ${self} may not publish to ${topic}`,
    hint: `it may publish to "shared/…", to "agents/${self}/…", to "agents/ID/inbox" of its parent, its parent's other agents and the agents below it, and to the reply_to of a message`,
  };
}

/** Below it, its parent, or another agent of its parent. Agents without a parent are strangers. */
function isNear(self: string, other: string, agents: Lookup): boolean {
  const parent = agents.get(self)?.parent_id;
  if (parent !== undefined && (other === parent || agents.get(other)?.parent_id === parent)) return true;
  return isBelow(self, other, agents);
}
