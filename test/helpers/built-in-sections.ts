import { z } from "zod";
import { definePlugin, type PluginContext, type TemplateSection, templateSection } from "../../core/index.js";
import { budgetSection } from "../../plugins/policy-budget/section.js";
import { childrenSection, detachSection } from "../../plugins/policy-children/sections.js";
import { prioritySection } from "../../plugins/policy-memory-pressure/section.js";
import { resourcesSection } from "../../plugins/policy-resources/section.js";
import { watchSections } from "../../plugins/probe-runner/sections.js";
import { restartSection } from "../../plugins/restart-policy-intensity/section.js";
import { logsSection, stopSection } from "../../plugins/spawner-process/sections.js";

/** The template sections of the built-in plugins, without what the plugins do about them. */
export function builtInSections(ctx: Pick<PluginContext, "use">): TemplateSection[] {
  return [
    restartSection,
    stopSection,
    logsSection,
    resourcesSection,
    budgetSection,
    childrenSection,
    detachSection,
    prioritySection,
    ...watchSections(ctx),
  ];
}

/** Provides these of them, for tests of something else. */
export const sectionsPlugin = definePlugin({
  name: "fixture-sections",
  apiVersion: 1,
  provides: [templateSection],
  options: z.strictObject({ names: z.array(z.string()) }),
  setup(ctx, { names }) {
    for (const section of builtInSections(ctx)) {
      if (names.includes(section.name)) ctx.provide(templateSection, section);
    }
  },
});
