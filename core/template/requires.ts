import { OpenStarryError } from "../contracts/errors.js";
import type { Endpoint } from "../contracts/plugin.js";
import type { PinnedTemplate } from "../contracts/template-source.js";
import { nearest } from "../lib/nearest.js";

/** Refuses a template that requires the agent itself, or a service that no plugin provides. */
export function checkRequires(agentId: string, pinned: PinnedTemplate, endpoints: readonly Endpoint[]): void {
  const { template, origin } = pinned;
  for (const need of template.requires) {
    if (need === `agent:${agentId}`) {
      throw new OpenStarryError("template_invalid", {
        detail: `template ${template.template_id} (${origin}): requires: agent ${agentId} would wait for itself`,
        hint: "choose another agent_id, or take it out of requires",
      });
    }
    if (need.startsWith("agent:") || endpoints.some(({ name }) => name === need)) continue;
    const known = endpoints.map(({ name }) => name);
    const guess = nearest(need, known);
    throw new OpenStarryError("template_invalid", {
      detail: `template ${template.template_id} (${origin}): requires: no plugin provides "${need}"`,
      hint: guess
        ? `did you mean "${guess}"?`
        : `provided: ${known.join(", ") || "nothing"}; add a plugin that provides it`,
    });
  }
}
