import { z } from "zod";
import { duration, type LogRules, type StopRules, size, type TemplateSection } from "../../core/index.js";

/** Signals that a template may name to ask an agent to end. */
const SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGKILL"] as const;

const stop = z
  .strictObject({ signal: z.enum(SIGNALS).default("SIGTERM"), grace: duration().default(10_000) })
  .transform(({ signal, grace }): StopRules => ({ signal, graceMs: grace }));

/** Below it, disk blocks and file names would outweigh the output. */
const SMALLEST_LOG_BYTES = 64 * 1_024;

const logs = z
  .strictObject({
    max_size: size()
      .pipe(z.int().min(SMALLEST_LOG_BYTES, "expected at least 64KiB"))
      .default(10 * 2 ** 20),
    keep: z.int().min(0).max(1_000).default(5),
    merge: z.boolean().default(false),
  })
  .transform(({ max_size, ...rest }): LogRules => ({ maxSizeBytes: max_size, ...rest }));

declare module "../../core/index.js" {
  interface TemplateSectionInputs {
    stop?: z.input<typeof stop>;
    logs?: z.input<typeof logs>;
  }
}

export const stopSection: TemplateSection<StopRules> = {
  name: "stop",
  description: "How it is asked to end, and how long it may take.",
  schema: stop,
  default: {},
};

export const logsSection: TemplateSection<LogRules> = {
  name: "logs",
  description: "How much of its output is kept, and how.",
  schema: logs,
  default: {},
};
