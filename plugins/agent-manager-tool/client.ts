import { randomUUID } from "node:crypto";
import { isOpenStarryError, OpenStarryError } from "../../core/errors.js";
import type { Agent, Usage } from "../../core/index.js";
import { followEvents } from "./event-stream.js";
import { isEnded } from "./summary.js";
import { type TargetOptions, targetSource } from "./target.js";
import { type Call, createTransport, type Transport } from "./transport.js";
import type * as Wire from "./wire.js";

export { isOpenStarryError, OpenStarryError } from "../../core/errors.js";
export type { StreamEvent } from "./event-stream.js";
export type * from "./wire.js";

export interface ClientOptions extends TargetOptions {
  /** The agent that `heartbeat` and `ready` speak for. Default: the one that the token belongs to. */
  agentId?: string;
  /**
   * For how long requests that may be repeated are tried again while the daemon is away, in
   * milliseconds. Default 0: told at once. `clientFromEnv` takes 10,000.
   */
  retryForMs?: number;
}

/** What an agent tells of itself. */
export interface Heartbeat {
  /** In its own words, at most a line. */
  status?: string;
  /** From 0 to 1. */
  progress?: number;
  /** Used since the run began. */
  usage?: Partial<Usage>;
}

export type Client = ReturnType<typeof createClient>;

/** Longer than any single wait that the daemon is asked for. */
const VERB_TIMEOUT_MS = 600_000;
const LONGEST_POLL_MS = 60_000;
const CREATE_WAIT_MS = 60_000;
const AWAY_RETRY_MS = 10_000;

/**
 * A client of the daemon's API. Without options it speaks as the operator to the daemon of
 * `$OPENSTARRY_HOME`. Throws `input_invalid` for an address that is not on this machine; every method
 * rejects with an `OpenStarryError`: the daemon's own, `daemon_not_running`, or `timeout`.
 */
export function createClient(options: ClientOptions = {}) {
  const retryForMs = options.retryForMs ?? 0;
  const transport = createTransport({ target: targetSource(options), retryForMs });
  const get = <T>(path: string, query: Call["query"], control: Wire.CallControl = {}) =>
    transport.json<T>({ method: "GET", path, ...(query ? { query } : {}), ...control });
  let self = options.agentId;

  async function heartbeat(report: Heartbeat = {}, control: Wire.CallControl = {}): Promise<void> {
    self ??= await ownId(() => get<Wire.WhoAmI>("/whoami", undefined, control));
    const path = `${agentPath(self)}/heartbeat`;
    await transport.json({ method: "POST", path, body: report, repeatable: true, ...control });
  }

  return {
    agents: agentsApi(transport),
    templates: templatesApi(transport),
    daemon: daemonApi(transport),
    /** A sign of life of this agent, with what it is doing. */
    heartbeat,
    /** The first heartbeat, which makes an agent with `readiness: heartbeat` ready. */
    ready: (control?: Wire.CallControl) => heartbeat({}, control),
    whoami: (control?: Wire.CallControl) => get<Wire.WhoAmI>("/whoami", undefined, control),
    plugins: (control?: Wire.CallControl) => get<Wire.PluginList>("/plugins", undefined, control),
    infrastructure: (control?: Wire.CallControl) =>
      get<Wire.Infrastructure>("/infrastructure", undefined, control),
    /**
     * Everything that happens, from now on or after `lastEventId`. A lost connection is taken up again
     * where it broke; the iteration ends when the signal aborts.
     */
    events: (query: Wire.EventQuery = {}) => events(transport, query),
    /** Gives the kept connections back. Requests under way are broken off. */
    close: () => transport.close(),
  };
}

/**
 * The client of an agent, out of what the daemon put into its environment. Without
 * `OPENSTARRY_TOKEN_FILE` it is the operator's, as `createClient()` is.
 */
export function clientFromEnv(env: NodeJS.ProcessEnv = process.env): Client {
  const tokenFile = env["OPENSTARRY_TOKEN_FILE"];
  if (!tokenFile) return createClient(env["OPENSTARRY_HOME"] ? { home: env["OPENSTARRY_HOME"] } : {});
  const socket = env["OPENSTARRY_API_SOCKET"];
  const url = env["OPENSTARRY_API_URL"];
  if (!socket && !url) {
    throw new OpenStarryError("input_invalid", {
      detail: "OPENSTARRY_TOKEN_FILE is set, but neither OPENSTARRY_API_SOCKET nor OPENSTARRY_API_URL",
      hint: "hand the variables of the daemon on to the program that needs them, all of them",
    });
  }
  const agentId = env["OPENSTARRY_AGENT_ID"];
  return createClient({
    ...(socket ? { socket } : { url: url as string }),
    tokenFile,
    ...(agentId ? { agentId } : {}),
    retryForMs: AWAY_RETRY_MS,
  });
}

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

function templatesApi(transport: Transport) {
  return {
    list: (control: Wire.CallControl = {}) =>
      transport.json<Wire.TemplateList>({ method: "GET", path: "/templates", ...control }),
    get: (templateId: string, control: Wire.CallControl = {}) =>
      transport.json<Wire.TemplateView>({ method: "GET", path: templatePath(templateId), ...control }),
    put: (templateId: string, template: Wire.TemplateInput, control: Wire.CallControl = {}) =>
      transport.json<Wire.TemplatePut>({
        method: "PUT",
        path: templatePath(templateId),
        body: template,
        repeatable: true,
        ...control,
      }),
    delete: (templateId: string, control: Wire.CallControl = {}) =>
      transport.json<{ template_id: string }>({
        method: "DELETE",
        path: templatePath(templateId),
        ...control,
      }),
  };
}

function daemonApi(transport: Transport) {
  const post = <T>(verb: string, body: Record<string, unknown>, control: Wire.CallControl) =>
    transport.json<T>({ method: "POST", path: `/daemon/${verb}`, body, timeoutMs: 60_000, ...control });
  return {
    status: (control: Wire.CallControl = {}) =>
      transport.json<Wire.DaemonView>({ method: "GET", path: "/daemon", ...control }),
    version: (control: Wire.CallControl = {}) =>
      transport.json<{ version: string }>({ method: "GET", path: "/version", ...control }),
    /** Answered when the stop has begun. `agents` absent: what becomes of them is as the config says. */
    stop: ({ agents, ...control }: Wire.CallControl & { agents?: "stop" | "keep" } = {}) =>
      post<unknown>("stop", agents === undefined ? {} : { agents }, control),
    restart: (control: Wire.CallControl = {}) => post<unknown>("restart", {}, control),
    reload: (control: Wire.CallControl = {}) =>
      post<{ applied: string[]; needs_restart: string[] }>("reload", {}, control),
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

async function* events(
  transport: Transport,
  options: Wire.EventQuery,
): AsyncGenerator<Wire.DaemonEvent | Wire.EventGap> {
  const { lastEventId, agent_id, type, ...control } = options;
  const from = lastEventId === undefined ? {} : { lastEventId: String(lastEventId) };
  const follow = { path: "/events", query: { agent_id, type }, ...control, ...from };
  for await (const { data } of followEvents(transport, follow)) {
    yield data as Wire.DaemonEvent | Wire.EventGap;
  }
}

async function* followLogs(
  transport: Transport,
  agentId: string,
  { cursor, ...query }: Wire.LogQuery,
  options: Wire.FollowOptions,
): AsyncGenerator<Wire.LogLine> {
  // In the query it would count again after every lost connection.
  const from = cursor === undefined ? {} : { lastEventId: cursor };
  const path = `${agentPath(agentId)}/logs`;
  let seen = false;
  try {
    for await (const { event, data } of followEvents(transport, {
      path,
      query: { ...query, follow: true },
      ...options,
      ...from,
    })) {
      seen = true;
      if (event === "line") yield data as Wire.LogLine;
    }
  } catch (error) {
    // Deleted while it was followed: there is nothing more to come.
    if (!seen || !isOpenStarryError(error) || error.code !== "agent_not_found") throw error;
  }
}

async function ownId(whoami: () => Promise<Wire.WhoAmI>): Promise<string> {
  const { agent_id } = await whoami();
  if (agent_id !== undefined) return agent_id;
  throw new OpenStarryError("input_invalid", {
    detail: "this token is not an agent's, so there is nobody whose heartbeat this would be",
    hint: "call it from within an agent, with OPENSTARRY_TOKEN_FILE in its environment",
  });
}

function agentPath(agentId: string): string {
  return `/agents/${encodeURIComponent(agentId)}`;
}

function templatePath(templateId: string): string {
  return `/templates/${encodeURIComponent(templateId)}`;
}

function endingOf({ graceMs, force }: Wire.StopOptions): Record<string, string | boolean> {
  return { ...(graceMs === undefined ? {} : { grace: `${graceMs}ms` }), ...(force ? { force } : {}) };
}

function signalOf({ signal }: Wire.CallControl): Wire.CallControl {
  return signal ? { signal } : {};
}
