import { randomUUID } from "node:crypto";
import { OpenStarryError } from "../../../core/contracts/errors.js";
import { isEnded } from "../tools/summary.js";
import { followLogs } from "./following.js";
import type { Transport } from "./transport.js";
import type * as Wire from "./wire.js";

/** Longer than any single wait that the daemon is asked for. */
const VERB_TIMEOUT_MS = 600_000;
const LONGEST_POLL_MS = 60_000;
const CREATE_WAIT_MS = 60_000;
/** What an answer may take longer than the wait that was asked for. */
const SLACK_MS = 30_000;

/** Everything under `/agents`. */
export function agentsApi(transport: Transport) {
  return { ...reading(transport), ...changing(transport) };
}

function reading(transport: Transport) {
  const get = <T>(path: string, query: object, control: Wire.CallControl = {}) =>
    transport.json<T>({ method: "GET", path, query: { ...query }, ...control });
  return {
    list: (query: Wire.AgentQuery = {}, control?: Wire.CallControl) =>
      get<Wire.AgentPage>("/agents", query, control),
    /** `pss`: with `resources.pss_bytes`. */
    get: (agentId: string, { pss, ...control }: Wire.CallControl & { pss?: boolean } = {}) =>
      get<Wire.Agent>(pathOf(agentId), pss ? { pss } : {}, control),
    wait: (agentId: string, options: Wire.WaitOptions) => wait(transport, agentId, options),
    /** Rejects with `result_not_found` when it left none. */
    result: (agentId: string, control?: Wire.CallControl) =>
      get<Wire.Result>(`${pathOf(agentId)}/result`, {}, control),
    why: (agentId: string, control?: Wire.CallControl) =>
      get<Wire.Why>(`${pathOf(agentId)}/why`, {}, control),
    /** What it has used lately. */
    samples: (agentId: string, query: Wire.SampleQuery = {}, control?: Wire.CallControl) =>
      get<Wire.SamplePage>(`${pathOf(agentId)}/samples`, query, control),
    /** What happened to it. */
    events: (agentId: string, query: Wire.EventPageQuery = {}, control?: Wire.CallControl) =>
      get<Wire.EventPage>(`${pathOf(agentId)}/events`, query, control),
    logs: (agentId: string, query: Wire.LogQuery = {}, control?: Wire.CallControl) =>
      get<Wire.LogPage>(`${pathOf(agentId)}/logs`, query, control),
    /** The last lines, and all that come, until the signal aborts or the agent is deleted. */
    followLogs: (agentId: string, query: Wire.LogQuery = {}, options: Wire.FollowOptions = {}) =>
      followLogs(transport, agentId, query, options),
  };
}

function changing(transport: Transport) {
  const verb = (agentId: string, name: string, body: object, options: Wire.VerbOptions) =>
    transport.json<Wire.Agent>({
      method: "POST",
      path: `${pathOf(agentId)}/${name}`,
      body: { ...body, ...(options.wait === undefined ? {} : { wait: options.wait }) },
      timeoutMs: VERB_TIMEOUT_MS,
      ...signalOf(options),
    });
  return {
    create: (input: Wire.CreateInput, options: Wire.CreateOptions = {}) => create(transport, input, options),
    start: (agentId: string, options: Wire.VerbOptions = {}) => verb(agentId, "start", {}, options),
    stop: (agentId: string, options: Wire.StopOptions = {}) =>
      verb(agentId, "stop", endingOf(options), options),
    restart: (agentId: string, options: Wire.VerbOptions = {}) => verb(agentId, "restart", {}, options),
    /** To the agent's own process. */
    signal: (agentId: string, signal: string, control: Wire.CallControl = {}) =>
      verb(agentId, "signal", { signal }, control),
    /** Ends it and forgets it; answers its final record. */
    remove: (agentId: string, options: Wire.StopOptions = {}) =>
      transport.json<Wire.Agent>({
        method: "DELETE",
        path: pathOf(agentId),
        query: { ...endingOf(options), wait: options.wait },
        timeoutMs: VERB_TIMEOUT_MS,
        ...signalOf(options),
      }),
  };
}

/** Asked again with the same key when no answer came: it never starts two. */
function create(transport: Transport, input: Wire.CreateInput, options: Wire.CreateOptions) {
  const waitMs = options.timeoutMs ?? CREATE_WAIT_MS;
  return transport.json<Wire.Agent>({
    method: "POST",
    path: "/agents",
    query: {
      wait_for: options.waitFor,
      timeout: options.waitFor && `${waitMs}ms`,
      dry_run: options.dryRun,
    },
    body: input,
    headers: { "idempotency-key": options.idempotencyKey ?? randomUUID() },
    timeoutMs: waitMs + SLACK_MS,
    repeatable: true,
    ...signalOf(options),
  });
}

/**
 * Long polls, one after another, so that no single request has to live as long as the agent. The daemon
 * answers a poll whose time is over with the agent as it is.
 */
async function wait(transport: Transport, agentId: string, options: Wire.WaitOptions): Promise<Wire.Agent> {
  const endsAt = performance.now() + (options.timeoutMs ?? Number.POSITIVE_INFINITY);
  for (;;) {
    const pollMs = Math.ceil(Math.min(Math.max(0, endsAt - performance.now()), LONGEST_POLL_MS));
    const agent = await transport.json<Wire.Agent>({
      method: "GET",
      path: pathOf(agentId),
      query: { wait_for: options.for, timeout: `${pollMs}ms` },
      timeoutMs: pollMs + SLACK_MS,
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

function pathOf(agentId: string): string {
  return `/agents/${encodeURIComponent(agentId)}`;
}

function endingOf({ graceMs, force }: Wire.StopOptions): Record<string, string | boolean> {
  return { ...(graceMs === undefined ? {} : { grace: `${graceMs}ms` }), ...(force ? { force } : {}) };
}

function signalOf({ signal }: Wire.CallControl): Wire.CallControl {
  return signal ? { signal } : {};
}
