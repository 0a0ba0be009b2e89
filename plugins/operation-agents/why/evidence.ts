import { z } from "zod";

const KINDS = [
  "requirement",
  "hold",
  "deferral",
  "ending",
  "survivors",
  "limit",
  "throttle",
  "progress",
  "health",
  "readiness",
  "liveness",
  "oom",
  "signal",
  "parent",
  "restarts",
  "journal",
] as const;

/** One fact that the answer is based on. */
export const evidenceSchema = z
  .object({
    kind: z.enum(KINDS),
    text: z.string().meta({ description: "In words, with the observed figures." }),
    at: z.string().optional().meta({ description: "Absent: now." }),
    run_id: z.string().optional(),
    actor: z
      .string()
      .optional()
      .meta({ description: "Who caused it: operator, agent:ID, plugin:NAME, daemon." }),
  })
  .meta({ id: "Evidence" });
export type Evidence = z.output<typeof evidenceSchema>;
