import { randomUUID } from "node:crypto";
import { OpenStarryError } from "../../core/errors.js";
import { followLogs } from "./following.js";
import { isEnded } from "./summary.js";
import type { Transport } from "./transport.js";
import type * as Wire from "./wire.js";

function agentsApi(transport: Transport) {
  const verb = (path: string, body: Record<string, unknown>, options: Wire.VerbOptions) =>
    transport.json<Agent>({
      method: "POST",
      path,
      body: { ...body, ...(options.wait === undefined ? {} : { wait: options.wait }) },
      timeoutMs: VERB_TIMEOUT_MS,
      ...signalOf(options),
    });

  return {
    /** Starts an agent. Asked again with the same key when no answer came: it never starts two. */
    create(input: Wire.CreateInput, options: Wire.CreateOptions = {}) {
      const waitMs = options.timeoutMs ?? CREATE_WAIT_MS;
      return transport.json<Agent>({
        method: "POST",
        path: "/agents",
        query: {
          wait_for: options.waitFor,
          timeout: options.waitFor && `${waitMs}ms`,
          dry_run: options.dryRun,
        },
        body: input,
        headers: { "idempotency-key": options.idempotencyKey ?? randomUUID() },
        timeoutMs: waitMs + 30_000,
        repeatable: true,
        ...signalOf(options),
      });
    },
    list: (query: Wire.AgentQuery = {}, control: Wire.CallControl = {}) =>
      transport.json<Wire.AgentPage>({ method: "GET", path: "/agents", query: { ...query }, ...control }),
    get: (agentId: string, control: Wire.CallControl = {}) =>
      transport.json<Agent>({ method: "GET", path: agentPath(agentId), ...control }),
    wait: (agentId: string, options: Wire.WaitOptions) => wait(transport, agentId, options),
    start: (agentId: string, options: Wire.VerbOptions = {}) =>
      verb(`${agentPath(agentId)}/start`, {}, options),
    stop: (agentId: string, options: Wire.StopOptions = {}) =>
      verb(`${agentPath(agentId)}/stop`, endingOf(options), options),
    restart: (agentId: string, options: Wire.VerbOptions = {}) =>
      verb(`${agentPath(agentId)}/restart`, {}, options),
    /** Ends it and forgets it; answers its final record. */
    remove: (agentId: string, options: Wire.StopOptions = {}) =>
      transport.json<Agent>({
        method: "DELETE",
        path: agentPath(agentId),
        query: { ...endingOf(options), wait: options.wait },
        timeoutMs: VERB_TIMEOUT_MS,
        ...signalOf(options),
      }),
    /** To the agent's own process. */
    signal: (agentId: string, signal: string, control: Wire.CallControl = {}) =>
      transport.json<Agent>({
        method: "POST",
        path: `${agentPath(agentId)}/signal`,
        body: { signal },
        ...control,
      }),
    /** Rejects with `result_not_found` when it left none. */
    result: (agentId: string, control: Wire.CallControl = {}) =>
      transport.json<Wire.Result>({ method: "GET", path: `${agentPath(agentId)}/result`, ...control }),
    why: (agentId: string, control: Wire.CallControl = {}) =>
      transport.json<Wire.Why>({ method: "GET", path: `${agentPath(agentId)}/why`, ...control }),
    /** What happened to it. */
    events: (agentId: string, query: Wire.EventPageQuery = {}, control: Wire.CallControl = {}) =>
      transport.json<Wire.EventPage>({
        method: "GET",
        path: `${agentPath(agentId)}/events`,
        query: { ...query },
        ...control,
      }),
    logs: (agentId: string, query: Wire.LogQuery = {}, control: Wire.CallControl = {}) =>
      transport.json<Wire.LogPage>({
        method: "GET",
        path: `${agentPath(agentId)}/logs`,
        query: { ...query },
        ...control,
      }),
    /** The last lines, and all that come, until the signal aborts or the agent is deleted. */
    followLogs: (agentId: string, query: Wire.LogQuery = {}, options: Wire.FollowOptions = {}) =>
      followLogs(transport, agentId, query, options),
  };
}

/**
 * Long polls, one after another, so that no single request has to live as long as the agent. The daemon
 * answers a poll whose time is over with the agent as it is.
 */
async function wait(transport: Transport, agentId: string, options: Wire.WaitOptions): Promise<Agent> {
  const endsAt = performance.now() + (options.timeoutMs ?? Number.POSITIVE_INFINITY);
  for (;;) {
    const pollMs = Math.ceil(Math.min(Math.max(0, endsAt - performance.now()), LONGEST_POLL_MS));
    const agent = await transport.json<Agent>({
      method: "GET",
      path: agentPath(agentId),
      query: { wait_for: options.for, timeout: `${pollMs}ms` },
      timeoutMs: pollMs + 30_000,
      ...signalOf(options),
    });
    if (isEnded(agent.state) || (options.for === "ready" && agent.state === "running")) return agent;
    if (performance.now() < endsAt) continue;
    throw new OpenStarryError("timeout", {
      detail: `agent ${agentId} was not ${options.for} within ${options.timeoutMs} ms; it is ${agent.state}`,
      hint: "wait again, or look into its logs",
      data: { state: agent.state },
    });
  }
}

function agentPath(agentId: string): string {
  return `/agents/${encodeURIComponent(agentId)}`;
}

function endingOf({ graceMs, force }: Wire.StopOptions): Record<string, string | boolean> {
  return { ...(graceMs === undefined ? {} : { grace: `${graceMs}ms` }), ...(force ? { force } : {}) };
}

function signalOf({ signal }: Wire.CallControl): Wire.CallControl {
  return signal ? { signal } : {};
}
