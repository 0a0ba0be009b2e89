import { z } from "zod";
import type { TemplateSection } from "../../core/index.js";

const children = z.strictObject({
  max: z.int().min(1).max(10_000).default(8),
  depth: z.int().min(1).max(100).default(1),
  on_exit: z.enum(["stop", "reparent"]).default("stop"),
});

export type ChildrenRules = z.output<typeof children>;

declare module "../../core/index.js" {
  interface TemplateSections {
    children?: ChildrenRules;
    detach?: boolean;
  }
  interface TemplateSectionInputs {
    children?: z.input<typeof children>;
    detach?: boolean;
  }
}

export const childrenSection: TemplateSection<ChildrenRules> = {
  name: "children",
  description:
    "How many agents it may start, how far below it they may stand, and what follows when it ends.",
  schema: children,
};

export const detachSection: TemplateSection<boolean> = {
  name: "detach",
  description: "It outlives the agent that started it.",
  schema: z.boolean(),
  default: false,
};
