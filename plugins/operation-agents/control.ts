import { z } from "zod";
import {
  type Agent,
  defineOperation,
  duration,
  OpenStarryError,
  type Operation,
  type OperationCall,
  type PluginContext,
} from "../../core/index.js";
import { asAccepted, launchError, statusOf } from "./answers.js";
import { requireOwnAgent } from "./lookup.js";
import { agentSchema, discardedSchema, ofAgent, waitFlag } from "./schemas.js";
import { restartTool, stopTool } from "./tools.js";

/** What `POST /agents/{id}/signal` sends. */
const SIGNALS = [
  "SIGHUP",
  "SIGINT",
  "SIGQUIT",
  "SIGTERM",
  "SIGKILL",
  "SIGUSR1",
  "SIGUSR2",
  "SIGSTOP",
  "SIGCONT",
  "SIGWINCH",
] as const;

const ending = {
  grace: duration().optional().meta({
    description: 'How long it may take to end by itself, as in "5s". Default: as its template says.',
  }),
  force: z.boolean().default(false).meta({ description: "true: no grace at all." }),
};

type Ending = { grace?: number | undefined; force: boolean };

function graceOf({ grace, force }: Ending): { graceMs?: number } {
  if (force) return { graceMs: 0 };
  return grace === undefined ? {} : { graceMs: grace };
}

/** `agents.stop`, `agents.start`, `agents.restart`, `agents.signal`. */
export function controlOperations(ctx: PluginContext): Operation<never>[] {
  const about = (agentId: string, { principal, signal }: OperationCall, what: string) => ({
    agent: requireOwnAgent(ctx.agents, agentId, principal),
    intent: { actor: principal.id, reason: `${what} was asked for by ${principal.id}` },
    settled: () => ctx.agents.wait(agentId, "settled", { signal }),
  });

  return [
    defineOperation({
      name: "agents.stop",
      summary: "Ends the agent's process and all that belongs to it; the record stays.",
      scope: "agent:control",
      input: z.strictObject({ ...ofAgent, ...ending, wait: waitFlag }),
      output: agentSchema,
      http: { method: "POST", path: "/agents/{agent_id}/stop", status: statusOf },
      tools: [stopTool],
      async handler(input, call) {
        const { intent, settled } = about(input.agent_id, call, "a stop");
        const agent = await ctx.control.stop(input.agent_id, { ...intent, ...graceOf(input) });
        return input.wait ? settled() : asAccepted(agent);
      },
    }),
    defineOperation({
      name: "agents.start",
      summary: "Starts an agent that is not running, with the newest revision of its template.",
      scope: "agent:control",
      input: z.strictObject({ ...ofAgent, wait: waitFlag }),
      output: agentSchema,
      http: { method: "POST", path: "/agents/{agent_id}/start", status: statusOf },
      async handler({ agent_id, wait }, call) {
        const { intent, settled } = about(agent_id, call, "a start");
        const agent = await ctx.control.start(agent_id, intent);
        return wait ? started(await settled()) : asAccepted(agent);
      },
    }),
    defineOperation({
      name: "agents.restart",
      summary: "Ends the agent's process, if one lives, and starts it again; not counted as a restart.",
      scope: "agent:control",
      input: z.strictObject({ ...ofAgent, wait: waitFlag }),
      output: agentSchema,
      http: { method: "POST", path: "/agents/{agent_id}/restart", status: statusOf },
      tools: [restartTool],
      async handler({ agent_id, wait }, call) {
        const { intent, settled } = about(agent_id, call, "a restart");
        const agent = await ctx.control.restart(agent_id, intent);
        return wait ? started(await settled()) : asAccepted(agent);
      },
    }),
    defineOperation({
      name: "agents.signal",
      summary: "Sends a signal to the agent's own process, and to no other of its tree.",
      scope: "agent:control",
      input: z.strictObject({ ...ofAgent, signal: z.enum(SIGNALS) }),
      output: agentSchema,
      http: { method: "POST", path: "/agents/{agent_id}/signal" },
      async handler({ agent_id, signal }, call) {
        const { agent, intent } = about(agent_id, call, `signal ${signal}`);
        if (agent.pid === undefined) throw notRunning(agent);
        await ctx.control.signal(agent_id, signal, intent);
        return ctx.agents.get(agent_id) ?? agent;
      },
    }),
  ];
}

/** `agents.delete`. */
export function deleteOperations(ctx: PluginContext): Operation<never>[] {
  return [
    defineOperation({
      name: "agents.delete",
      summary:
        "Ends the agent's process and all that belongs to it, and forgets the record; answers how it was at last.",
      scope: "agent:control",
      input: z.strictObject({ ...ofAgent, ...ending, wait: waitFlag }),
      output: z.union([agentSchema, discardedSchema]),
      http: { method: "DELETE", path: "/agents/{agent_id}", status: statusOf },
      async handler(input, { principal, signal }) {
        const { agent_id } = input;
        const quarantined = ctx.agents.quarantined(agent_id);
        if (quarantined !== undefined && principal.kind === "operator") {
          const reason = `its deletion was asked for by ${principal.id}`;
          await ctx.control.discard(agent_id, { actor: principal.id, reason });
          return { agent_id, quarantined };
        }
        requireOwnAgent(ctx.agents, agent_id, principal);
        const over = new AbortController();
        // Asked for first: an agent without a process may be gone before `remove` has answered.
        const gone = ctx.agents.wait(agent_id, "gone", { signal: AbortSignal.any([signal, over.signal]) });
        gone.catch(() => {});
        try {
          const reason = `its deletion was asked for by ${principal.id}`;
          const agent = await ctx.control.remove(agent_id, {
            actor: principal.id,
            reason,
            ...graceOf(input),
          });
          return input.wait ? await gone : asAccepted(agent);
        } finally {
          over.abort();
        }
      },
    }),
  ];
}

function started(agent: Agent): Agent {
  const error = launchError(agent);
  if (error) throw error;
  return agent;
}

function notRunning(agent: Agent): OpenStarryError {
  return new OpenStarryError("agent_not_running", {
    detail: `agent ${agent.agent_id} has no process; it is ${agent.state}`,
    hint: `start it with POST /agents/${agent.agent_id}/start`,
  });
}
