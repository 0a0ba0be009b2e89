import { type ResourceRules, resourcesSchema, type TemplateSection } from "../../core/index.js";

export const resourcesSection: TemplateSection<ResourceRules> = {
  name: "resources",
  description: "Limits of a run, over its whole process tree.",
  schema: resourcesSchema,
};
