import { crc32 } from "node:zlib";
import { z } from "zod";
import { AGENT_STATES, type StoredAgent } from "../../core/index.js";

const texts = z.array(z.string());
const byName = z.record(z.string(), z.string());
const time = z.string().refine((text) => !Number.isNaN(Date.parse(text)), "it is no time");
const amount = z.number().min(0);
const ms = z.number().min(0);

const template = z.looseObject({
  template_id: z.string(),
  command: z.string().min(1),
  args: texts,
  params: z.record(z.string(), z.looseObject({})),
  env: byName,
  pass_env: texts,
  env_file: texts,
  spawner: z.string(),
  requires: texts,
  readiness: z.looseObject({ type: z.string(), timeoutMs: ms }).optional(),
  liveness: z.looseObject({ type: z.string() }).optional(),
  restart: z.looseObject({
    policy: z.string(),
    max_restarts: z.number(),
    periodMs: ms,
    backoff: z.looseObject({ minMs: ms, maxMs: ms }),
  }),
  success_exit_codes: z.array(z.number()),
  stop: z.looseObject({ signal: z.string(), graceMs: ms }),
  children: z.looseObject({ max: z.number(), depth: z.number(), on_exit: z.string() }).optional(),
  logs: z.looseObject({ keep: z.number(), merge: z.boolean() }),
  removeAfterMs: ms.optional(),
});

const usage = z.looseObject({ input_tokens: amount, output_tokens: amount, cost_usd: amount });

const exit = z.looseObject({ kind: z.string(), cause: z.string(), reason: z.string(), ended_at: time });

/** What the kernel acts on. More may stand in a record: a later version of this one wrote it then. */
const storedAgent = z.looseObject({
  agent: z.looseObject({
    agent_id: z.string().min(1).max(100),
    template_id: z.string(),
    template_revision: z.string(),
    state: z.enum(AGENT_STATES),
    desired: z.enum(["running", "stopped"]),
    health: z.string(),
    spawner: z.string(),
    restarts: z.number(),
    created_at: time,
    started_at: time.optional(),
    next_start_at: time.optional(),
    parent_id: z.string().optional(),
    run_id: z.string().optional(),
    pid: z.int().min(2).optional(),
    last_exit: exit.optional(),
    usage: usage.optional(),
    spent: usage.optional(),
    labels: byName,
  }),
  template: z.looseObject({ revision: z.string(), origin: z.string(), template }),
  params: z.record(z.string(), z.unknown()),
  origin: z.enum(["config", "request", "service"]),
  ending: z.looseObject({ cause: z.string(), actor: z.string(), reason: z.string() }).optional(),
  unreported: z.looseObject({ run_id: z.string(), exit }).optional(),
  deleting: z.boolean().optional(),
  held: z.looseObject({ by: z.string(), reason: z.string() }).optional(),
});

/** What is kept beside a record: a byte that changed on the disk may still read well. */
export const checksumOf = (record: string): number => crc32(record);

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** Throws for what is not UTF-8, or no bytes at all. */
export function textOf(bytes: unknown): string {
  if (!(bytes instanceof ArrayBuffer)) throw new Error("it is no text");
  return utf8.decode(bytes);
}

/**
 * Reads a row. Throws, in words, when it is not a record that may be acted on. One without a checksum
 * was mended by hand, or written before there were any.
 */
export function readStoredAgent(agentId: string, row: { record?: unknown; checksum?: unknown }): StoredAgent {
  const text = textOf(row.record);
  const { checksum } = row;
  if (checksum !== null && checksum !== checksumOf(text)) {
    throw new Error("its checksum does not fit: it was changed by something else than the daemon");
  }
  const parsed: unknown = JSON.parse(text);
  const result = storedAgent.safeParse(parsed);
  if (!result.success) {
    const [issue] = result.error.issues;
    throw new Error(`${issue?.path.join(".") || "the record"}: ${issue?.message ?? "it is not valid"}`);
  }
  if (result.data.agent.agent_id !== agentId) {
    throw new Error(`it is about "${result.data.agent.agent_id}"`);
  }
  return parsed as StoredAgent;
}
