import { z } from "zod";
import {
  authenticator,
  defineOperation,
  type Operation,
  type PluginContext,
  type Principal,
} from "../../../core/index.js";
import { DAEMON_TOPICS, ownerOf } from "../../kit/topics.js";
import type { Frame } from "../ipc/frames.js";
import type { Identity } from "../ipc/identity.js";

const OPERATIONS = { publish: "bus.may_publish", subscribe: "bus.may_subscribe" } as const;

/**
 * Returns operations without a route that do nothing: the broker's clients are authorized by dispatching them, so
 * that the same rules decide about `bus.publish` and `bus.subscribe` over HTTP and over MQTT.
 */
export function authorizationOperations(): Operation<never>[] {
  return [
    defineOperation({
      name: OPERATIONS.publish,
      summary: "Checks whether a client of the broker may publish to a topic.",
      scope: "bus:publish",
      input: z.strictObject({ topic: z.string() }),
      handler: async () => ({}),
    }),
    defineOperation({
      name: OPERATIONS.subscribe,
      summary: "Checks whether a client of the broker may subscribe to a filter.",
      scope: "bus:subscribe",
      input: z.strictObject({ filter: z.string() }),
      handler: async () => ({}),
    }),
  ];
}

/** Returns the function that answers the broker's questions about its clients. */
export function createClientAuthorization(ctx: Pick<PluginContext, "agents" | "dispatch" | "has" | "use">) {
  function identify(token: string): Identity | undefined {
    const principal = ctx.has(authenticator) ? ctx.use(authenticator).authenticate(token) : undefined;
    if (principal?.kind === "operator") return { name: principal.id };
    if (principal?.kind !== "agent") return undefined;
    const { id: name, agentId, runId } = principal;
    // An identity without these is the operator's, so an incomplete answer of an authenticator must not become one.
    return agentId && runId ? { name, agentId, runId } : undefined;
  }

  async function isAllowed(who: Identity, action: keyof typeof OPERATIONS, where: string): Promise<boolean> {
    const principal = principalOf(who);
    if (principal.kind === "agent" && ctx.agents.byRun(principal.runId) === undefined) return false;
    if (action === "publish" && !isPublishable(where)) return false;
    const input = action === "publish" ? { topic: where } : { filter: where };
    return ctx.dispatch(OPERATIONS[action], input, principal).then(
      () => true,
      () => false,
    );
  }

  /** As over HTTP: the daemon's own topics are reserved, and topics of an agent need that agent to exist. */
  function isPublishable(topic: string): boolean {
    const owner = ownerOf(topic);
    if (topic.split("/")[0] === DAEMON_TOPICS) return false;
    return owner === undefined || ctx.agents.get(owner) !== undefined;
  }

  return async ({ header }: Frame): Promise<object> => {
    if (header["do"] === "identify") return { identity: identify(String(header["token"])) };
    const { who, what, where } = header as { who: Identity; what: keyof typeof OPERATIONS; where: string };
    return { allowed: await isAllowed(who, what, where) };
  };
}

function principalOf({ name, agentId, runId }: Identity): Principal {
  if (agentId === undefined || runId === undefined) return { kind: "operator", id: name };
  return { kind: "agent", id: name, agentId, runId };
}
