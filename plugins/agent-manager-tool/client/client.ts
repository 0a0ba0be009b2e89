import { OpenStarryError } from "../../../core/contracts/errors.js";
import type { Usage } from "../../../core/index.js";
import { agentsApi } from "./agents-api.js";
import { busApi } from "./bus-api.js";
import { events } from "./following.js";
import { stateApi } from "./state-api.js";
import { type TargetOptions, targetSource } from "./target.js";
import { type Call, createTransport, type Transport } from "./transport.js";
import type * as Wire from "./wire.js";

export { isOpenStarryError, OpenStarryError } from "../../../core/contracts/errors.js";
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

  async function heartbeat(
    report: Heartbeat = {},
    control: Wire.CallControl = {},
  ): Promise<Wire.HeartbeatAnswer> {
    self ??= await ownId(() => get<Wire.WhoAmI>("/whoami", undefined, control));
    const path = `/agents/${encodeURIComponent(self)}/heartbeat`;
    return transport.json({ method: "POST", path, body: report, repeatable: true, ...control });
  }

  return {
    agents: agentsApi(transport),
    templates: templatesApi(transport),
    /** Messages: to and from agents, and from the daemon. */
    bus: busApi(transport),
    daemon: daemonApi(transport),
    state: stateApi(transport),
    /** A sign of life of this agent, with what it is doing; the answer says what is the matter, if anything. */
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
      post<{ state: "stopping"; pid?: number }>("stop", agents === undefined ? {} : { agents }, control),
    restart: (control: Wire.CallControl = {}) => post<unknown>("restart", {}, control),
    reload: (control: Wire.CallControl = {}) =>
      post<{ applied: string[]; needs_restart: string[] }>("reload", {}, control),
  };
}

async function ownId(whoami: () => Promise<Wire.WhoAmI>): Promise<string> {
  const { agent_id } = await whoami();
  if (agent_id !== undefined) return agent_id;
  throw new OpenStarryError("input_invalid", {
    detail: "this token is not an agent's, so there is nobody whose heartbeat this would be",
    hint: "call it from within an agent, with OPENSTARRY_TOKEN_FILE in its environment",
  });
}

function templatePath(templateId: string): string {
  return `/templates/${encodeURIComponent(templateId)}`;
}
