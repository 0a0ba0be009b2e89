import { z } from "zod";
import { AGENT_STATES, type StoredAgent } from "../../core/index.js";

/** What the kernel acts on. More may stand in a record: a later version of this one wrote it then. */
const storedAgent = z.looseObject({
  agent: z.looseObject({
    agent_id: z.string().min(1).max(100),
    template_id: z.string(),
    state: z.enum(AGENT_STATES),
    desired: z.enum(["running", "stopped"]),
    spawner: z.string(),
    restarts: z.number(),
    created_at: z.string(),
    run_id: z.string().optional(),
    pid: z.int().min(2).optional(),
    labels: z.record(z.string(), z.string()),
  }),
  template: z.looseObject({
    revision: z.string(),
    origin: z.string(),
    template: z.looseObject({
      template_id: z.string(),
      command: z.string().min(1),
      args: z.array(z.string()),
      env: z.record(z.string(), z.string()),
      stop: z.looseObject({ signal: z.string(), graceMs: z.number().min(0) }),
      restart: z.looseObject({ policy: z.string() }),
    }),
  }),
  params: z.record(z.string(), z.unknown()),
  origin: z.enum(["config", "request", "service"]),
});

/** Reads a row. Throws, in words, when it is not a record that may be acted on. */
export function readStoredAgent(agentId: string, json: string): StoredAgent {
  const parsed: unknown = JSON.parse(json);
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
