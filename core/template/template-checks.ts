import { OpenStarryError } from "../contracts/errors.js";
import type { Endpoint } from "../contracts/plugin.js";
import { type ChosenProbe, type ProbeRole, probe, probeRunner } from "../contracts/probe.js";
import type { PinnedTemplate } from "../contracts/template-source.js";
import type { SlotRegistry } from "../host/slots.js";
import { nearest } from "../lib/nearest.js";
import { validateSync } from "../lib/validate.js";
import { expandAll, expandPlaceholders, placeholders } from "./placeholders.js";

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

/** What the placeholders of a template stand for. */
export interface TemplateValues {
  readonly agentId: string;
  readonly params: Record<string, unknown>;
}

/**
 * The probe that a template names for a role, and the section's options, placeholders filled in.
 * `undefined` when there is no such section. Throws `template_invalid` for a probe that nobody provides or
 * that cannot be used here, and for options that it does not take.
 */
export function chooseProbe(
  { template, origin }: PinnedTemplate,
  role: ProbeRole,
  slots: SlotRegistry,
  values: TemplateValues | undefined,
): ChosenProbe | undefined {
  const section: Record<string, unknown> | undefined = template[role];
  if (!section) return undefined;
  const { type, timeoutMs: _own, ...given } = section;
  const what = `template ${template.template_id} (${origin}): ${role}`;
  requireRunner(slots, what, role);
  const fitting = [...slots.use(probe).values()].filter(({ roles }) => roles.includes(role));
  const found = fitting.find(({ name }) => name === type);
  if (!found) {
    throw new OpenStarryError("template_invalid", {
      detail: `${what}: there is no ${role} probe of type "${type}"`,
      hint: `known: ${fitting.map(({ name }) => name).join(", ") || "none"}; or add a plugin that provides it`,
    });
  }
  if (found.unavailable !== undefined) {
    throw new OpenStarryError("template_invalid", {
      detail: `${what}: the probe ${found.name} cannot be used here: ${found.unavailable}`,
      hint: "choose another type of probe, or see to that",
    });
  }
  const filled = values
    ? expandAll(given, (text) => expandPlaceholders(text, values.agentId, values.params))
    : given;
  // What a placeholder will be is not known before there is an agent.
  if (!values && placeholders(JSON.stringify(given)).length > 0) return { probe: found, options: given };
  return { probe: found, options: validateSync(found.options, filled, { code: "template_invalid", what }) };
}

/**
 * Refuses a template that wants to be watched in a way that nobody provides, or misuses one. Without
 * `values` options with placeholders are not looked at.
 */
export function checkProbes(pinned: PinnedTemplate, slots: SlotRegistry, values?: TemplateValues): void {
  const { template, origin } = pinned;
  chooseProbe(pinned, "readiness", slots, values);
  chooseProbe(pinned, "liveness", slots, values);
  if (template.progress) {
    requireRunner(slots, `template ${template.template_id} (${origin}): progress`, "progress");
  }
}

function requireRunner(slots: SlotRegistry, what: string, section: string): void {
  if (slots.has(probeRunner)) return;
  throw new OpenStarryError("template_invalid", {
    detail: `${what}: no plugin watches agents`,
    hint: `take ["probe-runner", false] out of the config, or ${section} out of the template`,
  });
}
