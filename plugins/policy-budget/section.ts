import { z } from "zod";
import type { TemplateSection } from "../../core/index.js";

const schema = z
  .strictObject({
    tokens_max: z.int().min(1).optional(),
    cost_max_usd: z.number().positive().max(1_000_000_000).optional(),
    on_exceed: z.enum(["warn", "stop"]).default("stop"),
  })
  .refine(({ tokens_max, cost_max_usd }) => tokens_max !== undefined || cost_max_usd !== undefined, {
    message: "it limits nothing: set tokens_max, cost_max_usd or both",
  });

export type BudgetRules = z.output<typeof schema>;

declare module "../../core/index.js" {
  interface TemplateSections {
    budget?: BudgetRules;
  }
  interface TemplateSectionInputs {
    budget?: z.input<typeof schema>;
  }
}

export const budgetSection: TemplateSection<BudgetRules> = {
  name: "budget",
  description: "What it and all agents below it may use, by their own reports.",
  schema,
};
