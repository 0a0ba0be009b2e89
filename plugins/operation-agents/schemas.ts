import { z } from "zod";
import { AGENT_STATES, duration, ID_PATTERN, LIMIT_NAMES, SERVICE_ID_PATTERN } from "../../core/index.js";

const time = () => z.string().meta({ description: "RFC 3339, UTC." });

const resourcesSchema = z.object({
  cpu_percent: z.number().meta({ description: "Of one core, over the whole tree." }),
  cpu_ms: z.int().meta({ description: "CPU time that the run has used." }),
  memory_bytes: z.int().meta({ description: "Resident; what processes share is counted for each." }),
  processes: z.int(),
  pss_bytes: z.int().optional().meta({ description: "With what processes share counted once." }),
  sampled_at: time(),
});

const limitSchema = z.object({
  value: z.number().meta({ description: "Bytes, percent of one core, a number, or for times seconds." }),
  held_by: z.enum(["kernel", "polling"]),
  on_exceed: z.enum(["warn", "throttle", "stop", "restart"]).optional(),
});

const throttleSchema = z.object({
  percent: z.number().meta({ description: "Of one core." }),
  by: z.enum(["quota", "nice"]),
  actor: z.string(),
  reason: z.string(),
});

const usageSchema = z.object({
  input_tokens: z.number(),
  output_tokens: z.number(),
  cost_usd: z.number(),
});

/** How and why one run ended. Answers are open: a later version may say more. */
export const exitSchema = z
  .looseObject({
    kind: z.enum(["exited", "signaled", "spawn_failed", "lost"]),
    code: z.int().optional().meta({ description: "Where kind is exited." }),
    signal: z.string().optional().meta({ description: "Where kind is signaled." }),
    raw_status: z.int().optional().meta({ description: "What a shell reported for the signal." }),
    error: z.object({ code: z.string(), detail: z.string() }).optional().meta({
      description: "Where kind is spawn_failed.",
    }),
    run_id: z.string().optional(),
    pid: z.int().optional(),
    cause: z.enum([
      "self",
      "stop_request",
      "restart",
      "policy",
      "oom",
      "start_timeout",
      "unhealthy",
      "parent_exit",
      "daemon_stop",
      "host_reboot",
    ]),
    actor: z.string(),
    reason: z.string(),
    success: z.boolean(),
    started_at: time().optional(),
    ended_at: time(),
    output_tail: z.string().optional(),
  })
  .meta({ id: "Exit" });

/** An agent as every answer shows it. */
export const agentSchema = z
  .looseObject({
    agent_id: z.string(),
    template_id: z.string(),
    template_revision: z.string(),
    run_id: z.string().optional().meta({ description: "The current run; the last one when none lives." }),
    state: z.enum(AGENT_STATES),
    reason: z.string().optional().meta({ description: "Why it is in this state." }),
    desired: z.enum(["running", "stopped"]),
    health: z.enum(["unknown", "healthy", "unhealthy"]),
    pid: z.int().optional(),
    parent_id: z.string().optional(),
    spawner: z.string(),
    containment: z.enum(["full", "best_effort"]).optional(),
    restarts: z.int().meta({ description: "Automatic ones; those that were asked for are not counted." }),
    created_at: time(),
    started_at: time().optional(),
    ready_at: time().optional(),
    next_start_at: time().optional(),
    last_exit: exitSchema.optional(),
    resources: resourcesSchema.optional(),
    limits: z.partialRecord(z.enum(LIMIT_NAMES), limitSchema).optional(),
    throttle: throttleSchema.optional(),
    usage: usageSchema.optional().meta({ description: "Of the current run, or the last one." }),
    spent: usageSchema.optional().meta({
      description: "The usage of all its runs, and of all agents below it, deleted ones too.",
    }),
    status: z.string().optional().meta({ description: "The last heartbeat's own words." }),
    progress: z.number().optional(),
    labels: z.record(z.string(), z.string()),
  })
  .meta({ id: "Agent" });

/** The answer to a DELETE where there is no record to show. */
export const discardedSchema = z
  .strictObject({
    agent_id: z.string(),
    quarantined: z.string().meta({ description: "Why there was no readable record." }),
  })
  .meta({ id: "Discarded" });

/** An event as pages show it, and as the data of streams. */
export const eventSchema = z
  .looseObject({
    id: z.int(),
    type: z.string(),
    at: time(),
    agent_id: z.string().optional(),
    run_id: z.string().optional(),
    data: z.record(z.string(), z.unknown()),
  })
  .meta({ id: "Event" });

const recordId = z
  .string()
  .regex(
    new RegExp(`${ID_PATTERN.source}|${SERVICE_ID_PATTERN.source}`),
    "expected 1 to 63 letters, digits, '.', '_' or '-', not starting with '.' or '-'",
  )
  .meta({ description: "1 to 63 of A-Z a-z 0-9 . _ - ; not starting with . or - ; or svc:NAME" });

/** The input of everything that is about one agent, or about a service. */
export const ofAgent = { agent_id: recordId };

const MAX_WAIT_MS = 600_000;

/** How long a long poll may last. */
export const waitTimeout = duration()
  .refine((ms) => ms <= MAX_WAIT_MS, "at most 10m; ask again to go on waiting")
  .default(30_000)
  .meta({ description: 'How long to wait at most, as in "30s". Default 30s, at most 10m.' });

/** Whether an answer comes when the thing is done, or as soon as it is durably wanted. */
export const waitFlag = z.boolean().default(true).meta({
  description: "false: answer 202 as soon as it is certain to be done, not when it is done.",
});
