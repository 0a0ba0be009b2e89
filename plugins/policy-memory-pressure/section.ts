import { z } from "zod";
import type { TemplateSection } from "../../core/index.js";

const schema = z.int().min(-1_000).max(1_000);

declare module "../../core/index.js" {
  interface TemplateSections {
    priority?: number;
  }
  interface TemplateSectionInputs {
    priority?: number;
  }
}

export const prioritySection: TemplateSection<number> = {
  name: "priority",
  description: "Where not all agents can run, those of a higher priority start first and are stopped last.",
  schema,
  default: 0,
};
