import { z } from "zod";
import {
  definePlugin,
  duration,
  type LogRules,
  type ReadinessRules,
  type RestartRules,
  type StopRules,
  type TemplateSection,
  templateSection,
} from "../../core/index.js";

const restart = z
  .strictObject({
    policy: z.enum(["never", "on-failure", "always"]).default("on-failure"),
    max_restarts: z.int().default(5),
    period: duration().default(60_000),
    backoff: z
      .strictObject({ min: duration().default(1_000), max: duration().default(60_000) })
      .transform(({ min, max }) => ({ minMs: min, maxMs: max }))
      .prefault({}),
  })
  .transform(({ period, ...rest }): RestartRules => ({ ...rest, periodMs: period }));

const stop = z
  .strictObject({ signal: z.string().default("SIGTERM"), grace: duration().default(10_000) })
  .transform(({ signal, grace }): StopRules => ({ signal, graceMs: grace }));

const logs = z
  .strictObject({ keep: z.int().default(5), merge: z.boolean().default(false) })
  .transform((rules): LogRules => ({ maxSizeBytes: 2 ** 20, ...rules }));

const readiness = z
  .looseObject({ type: z.string(), timeout: duration().default(60_000) })
  .transform(({ timeout, ...rest }): ReadinessRules => ({ ...rest, timeoutMs: timeout }));

/** The sections that the kernel itself reads, as simple as the other memory parts. */
export const memorySections: readonly TemplateSection[] = [
  { name: "restart", description: "Read by the restart policy.", schema: restart, default: {} },
  { name: "stop", description: "Read by the spawner.", schema: stop, default: {} },
  { name: "logs", description: "Read by the spawner.", schema: logs, default: {} },
  { name: "readiness", description: "The test reports when a run is ready.", schema: readiness },
];

/** Provides those of them that no other plugin provides. */
export const memorySectionsPlugin = definePlugin({
  name: "memory-sections",
  apiVersion: 1,
  optional: [templateSection],
  provides: [templateSection],
  options: z.unknown(),
  setup(ctx) {
    const provided = ctx.use(templateSection);
    for (const section of memorySections) {
      if (!provided.has(section.name)) ctx.provide(templateSection, section);
    }
  },
});
