import { type ProbeRole, probe, probeRunner } from "./contracts/probe.js";
import type { PinnedTemplate } from "./contracts/template-source.js";
import { nearest, OpenStarryError } from "./errors.js";
import type { Endpoint } from "./plugin.js";
import type { SlotRegistry } from "./slots.js";
import { validateSync } from "./validate.js";

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

/** Refuses a template whose readiness or liveness names a probe that nobody provides, or misuses one. */
export function checkProbes(pinned: PinnedTemplate, slots: SlotRegistry): void {
  const { template, origin } = pinned;
  const sections: [ProbeRole, Record<string, unknown> | undefined][] = [
    ["readiness", template.readiness],
    ["liveness", template.liveness],
  ];
  for (const [role, section] of sections) {
    if (!section) continue;
    const { type, timeoutMs: _own, ...options } = section;
    const what = `template ${template.template_id} (${origin}): ${role}`;
    if (!slots.has(probeRunner)) {
      throw new OpenStarryError("template_invalid", {
        detail: `${what}: no plugin runs probes`,
        hint: `take ["health-checker", false] out of the config, or ${role} out of the template`,
      });
    }
    const fitting = [...slots.use(probe).values()].filter(({ roles }) => roles.includes(role));
    const found = fitting.find(({ name }) => name === type);
    if (!found) {
      throw new OpenStarryError("template_invalid", {
        detail: `${what}: there is no ${role} probe of type "${type}"`,
        hint: `known: ${fitting.map(({ name }) => name).join(", ") || "none"}; or add a plugin that provides it`,
      });
    }
    validateSync(found.options, options, { code: "template_invalid", what });
  }
}
