import { z } from "zod";
import type { TemplateSection } from "../contracts/template-section.js";

/** Sections about the agents that an agent starts. */
export const childrenSections: readonly TemplateSection[] = [
  {
    name: "children",
    description:
      "How many agents it may start, how far below it they may stand, and what follows when it ends.",
    schema: z.strictObject({
      max: z.int().min(1).max(10_000).default(8),
      depth: z.int().min(1).max(100).default(1),
      on_exit: z.enum(["stop", "reparent"]).default("stop"),
    }),
  },
  {
    name: "detach",
    description: "It outlives the agent that started it.",
    schema: z.boolean(),
    default: false,
  },
];
