import {
  type Agent,
  type AgentLookup,
  ENDED_STATES,
  OpenStarryError,
  type StartRequest,
} from "../../core/index.js";

/**
 * Throws `quota_exceeded` when an agent would be one child too many of its parent. An ended agent that is started
 * again counts too; the operator may start it all the same.
 */
export function checkQuota(
  { agent_id, parent_id }: Agent,
  { kind, actor }: StartRequest,
  agents: Pick<AgentLookup, "list" | "template">,
): void {
  if (parent_id === undefined) return;
  if (kind === "start" && !actor.startsWith("agent:")) return;
  const max = agents.template(parent_id)?.template.children?.max ?? (kind === "start" ? 0 : undefined);
  if (max === undefined) return;
  const children = agents
    .list()
    .filter(
      (it) => it.parent_id === parent_id && it.agent_id !== agent_id && !ENDED_STATES.includes(it.state),
    );
  if (children.length < max) return;
  const names = children.slice(0, 10).map((child) => child.agent_id);
  const more = children.length > names.length ? ` and ${children.length - names.length} more` : "";
  throw new OpenStarryError("quota_exceeded", {
    detail: `agent ${parent_id} has ${children.length} live children, and its template allows ${max}`,
    hint: `wait until one of them has ended or stop one: ${names.join(", ")}${more}`,
  });
}
