import {
  type ChosenProbe,
  fillPlaceholders,
  hasPlaceholders,
  OpenStarryError,
  type PinnedTemplate,
  type PluginContext,
  type ProbeRole,
  probe,
  type TemplateValues,
  validateSync,
} from "../../core/index.js";

/**
 * Answers the probe that a template names for a role, with the section's options, placeholders filled in;
 * `undefined` where it has no such section. Throws `template_invalid` for a probe that no plugin provides or that
 * cannot be used here, and for options that it does not take. Without `values`, options with placeholders are not
 * checked: what they will be is not known before there is an agent.
 */
export function chooseProbe(
  ctx: Pick<PluginContext, "use">,
  { template, origin }: PinnedTemplate,
  role: ProbeRole,
  values: TemplateValues | undefined,
): ChosenProbe | undefined {
  const section: Record<string, unknown> | undefined = template[role];
  if (!section) return undefined;
  const { type, timeoutMs: _own, ...given } = section;
  const what = `template ${template.template_id} (${origin}): ${role}`;
  const fitting = [...ctx.use(probe).values()].filter(({ roles }) => roles.includes(role));
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
      hint: "choose another type of probe, or fix the cause above",
    });
  }
  if (!values && hasPlaceholders(given)) return { probe: found, options: given };
  const filled = values ? fillPlaceholders(given, values) : given;
  return { probe: found, options: validateSync(found.options, filled, { code: "template_invalid", what }) };
}
