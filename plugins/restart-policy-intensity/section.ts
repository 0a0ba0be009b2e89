import { z } from "zod";
import { duration, type RestartRules, type TemplateSection } from "../../core/index.js";

const DEFAULT_MAX_BACKOFF_MS = 60_000;

const backoff = z
  .strictObject({ min: duration().default(1_000), max: duration().optional() })
  .refine(({ min, max }) => max === undefined || max >= min, {
    path: ["max"],
    message: "it is less than min",
  })
  .transform(({ min, max }) => ({ minMs: min, maxMs: max ?? Math.max(min, DEFAULT_MAX_BACKOFF_MS) }));

const schema = z
  .strictObject({
    policy: z.enum(["never", "on-failure", "always"]).default("on-failure"),
    max_restarts: z.int().min(0).max(1_000_000).default(5),
    period: duration().default(60_000),
    backoff: backoff.prefault({}),
  })
  .transform(({ period, ...rest }): RestartRules => ({ ...rest, periodMs: period }));

declare module "../../core/index.js" {
  interface TemplateSectionInputs {
    restart?: z.input<typeof schema>;
  }
}

export const restartSection: TemplateSection<RestartRules> = {
  name: "restart",
  description: "What follows when it ends by itself.",
  schema,
  default: {},
};
