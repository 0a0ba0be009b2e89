import { z } from "zod";
import { AGENT_STATES, type OperationTool } from "../../core/index.js";

const agentId = z
  .string()
  .meta({ description: "The id of the agent, as agent:start or agent:list gave it." });

/** A duration as a model writes it. */
const durationText = (description: string) =>
  z
    .string()
    .regex(/^([0-9]+(\.[0-9]{1,3})?(ms|s|m|h|d))+$/)
    .optional()
    .meta({ description });

const onAgent = z.strictObject({ agent_id: agentId });

export const startTool: OperationTool = {
  name: "agent:start",
  title: "Start an agent",
  effect: "write",
  description:
    "Starts a new agent as an independent process that works on its own. Returns at once, with the agent's id " +
    "and state; use agent:wait to wait for its end and agent:result for what it produced. Choose a clear " +
    "agent_id, because one id can be started only once, so that repeating a call can never give two agents. " +
    "To give the same template two jobs, start two agents with different ids.",
  input: z.strictObject({
    template_id: z.string().meta({ description: "Which kind of agent; one of the ids of agent:templates." }),
    agent_id: z
      .string()
      .regex(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$/)
      .optional()
      .meta({
        description:
          "The new agent's id: 1 to 63 letters, digits, '.', '_' or '-', such as data_worker_1. " +
          "Left out: the daemon makes one up.",
      }),
    params: z.record(z.string(), z.unknown()).optional().meta({
      description:
        "The job: values for the template's params, by name. agent:templates tells which it takes.",
    }),
    labels: z.record(z.string(), z.string()).optional().meta({
      description: 'Notes to find the agent by later, such as {"job": "sales-report"}.',
    }),
    wait_until: z.enum(["started", "ready"]).optional().meta({
      description:
        "When to return: once the process exists (started, the default) or once the agent is ready.",
    }),
  }),
};

export const waitTool: OperationTool = {
  name: "agent:wait",
  title: "Wait for agents",
  effect: "read",
  description:
    "Waits until all the given agents have ended (or are ready), and returns the state of each. When the timeout " +
    "comes first, it returns what is the case by then, with done: false; that is no error: call it again to go " +
    "on waiting.",
  input: z.strictObject({
    agent_ids: z.array(z.string()).min(1).max(50).meta({
      description: 'The ids of the agents to wait for, such as ["worker_1", "worker_2"].',
    }),
    until: z.enum(["ended", "ready"]).optional().meta({
      description:
        "ended (the default): its work is over, whatever came of it. ready: it is up and can be used.",
    }),
    timeout: durationText(
      'The longest time to wait, with its unit, such as "30s" or "10m". Default "45s", at most "1h".',
    ),
  }),
};

export const resultTool: OperationTool = {
  name: "agent:result",
  title: "Get an agent's result",
  effect: "read",
  description:
    "Returns what an agent left as its result when it ended. While it still runs there is none: agent:wait first.",
  input: onAgent,
};

export const statusTool: OperationTool = {
  name: "agent:status",
  title: "Show an agent",
  effect: "read",
  description:
    "Shows one agent: its state (pending, starting, running, stopping, backoff, stopped, exited, failed) and the " +
    "reason, its health, restarts, its own last words about its progress, and how its last run ended.",
  input: onAgent,
};

export const listTool: OperationTool = {
  name: "agent:list",
  title: "List agents",
  effect: "read",
  description:
    "Lists the agents that you may see: yourself and those that you started. Filters narrow it down.",
  input: z.strictObject({
    state: z.enum(AGENT_STATES).optional().meta({ description: "Only agents in this state." }),
    template_id: z.string().optional().meta({ description: "Only agents of this template." }),
    label: z.string().optional().meta({ description: 'Only agents with this label, as "name=value".' }),
    limit: z.int().min(1).max(1_000).optional().meta({ description: "How many at most. Default 50." }),
    cursor: z.string().optional().meta({
      description: "The next_cursor of the last answer, for the agents after those.",
    }),
  }),
};

export const logsTool: OperationTool = {
  name: "agent:logs",
  title: "Read an agent's output",
  effect: "read",
  description:
    "Returns the last lines that an agent printed, of its newest run; what went to standard error begins with " +
    "[stderr]. The place to look when an agent failed or hangs.",
  input: z.strictObject({
    agent_id: agentId,
    tail: z.int().min(1).max(10_000).optional().meta({
      description: "How many lines, counted from the end. Default 40.",
    }),
    stream: z.enum(["stdout", "stderr"]).optional().meta({
      description: "Only this stream. Left out: both.",
    }),
    previous: z.boolean().optional().meta({
      description: "True: of the run before the newest one. Default false.",
    }),
    since: z.string().optional().meta({
      description: 'Only what was printed since then, over restarts: "10m" for ten minutes ago, or RFC 3339.',
    }),
    until: z.string().optional().meta({
      description: "Only what was printed until then; written like since.",
    }),
  }),
};

export const whyTool: OperationTool = {
  name: "agent:why",
  title: "Explain an agent's state",
  effect: "read",
  description:
    "Explains why an agent is in the state that it is in: what happened to it, who asked for it, how its last run " +
    "ended, and what happens next.",
  input: onAgent,
};

export const restartTool: OperationTool = {
  name: "agent:restart",
  title: "Restart an agent",
  effect: "destructive",
  idempotent: false,
  description:
    "Ends an agent's process if one runs, and starts it again with the same id and params. Also starts again an " +
    "agent that has stopped, exited or failed. Its work in progress is lost.",
  input: onAgent,
};

export const stopTool: OperationTool = {
  name: "agent:stop",
  title: "Stop an agent",
  effect: "destructive",
  description:
    "Ends an agent and every process that it started: first politely, by force after its grace period. With " +
    "remove: true its record goes too, its result with it, and its id can be used again. Ending an agent that " +
    "has ended already does no harm.",
  input: z.strictObject({
    agent_id: agentId,
    remove: z.boolean().optional().meta({
      description: "True: forget the agent too. Read its result first. Default false.",
    }),
    grace: durationText(
      'How long it may take to end by itself, such as "10s". Default: what its template says.',
    ),
  }),
};
