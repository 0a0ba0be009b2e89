import { z } from "zod";
import {
  authenticator,
  defineOperation,
  type Operation,
  type PluginContext,
  type Principal,
} from "../../../core/index.js";
import { DAEMON_TOPICS, ownerOf } from "../../kit/topics.js";
import type { Identity } from "../broker/guard.js";
import type { Frame } from "../ipc/frames.js";

const NAMES = { publish: "bus.may_publish", subscribe: "bus.may_subscribe" } as const;

/**
 * Operations that do nothing, without a route: whether they may be done is what the broker asks about its
 * clients, so that whoever decides about `bus.publish` and `bus.subscribe` decides there too.
 */
export function accessOperations(): Operation<never>[] {
  return [
    defineOperation({
      name: NAMES.publish,
      summary: "Whether a client of the broker may publish to a topic.",
      scope: "bus:publish",
      input: z.strictObject({ topic: z.string() }),
      handler: async () => ({}),
    }),
    defineOperation({
      name: NAMES.subscribe,
      summary: "Whether a client of the broker may read what fits a filter.",
      scope: "bus:subscribe",
      input: z.strictObject({ filter: z.string() }),
      handler: async () => ({}),
    }),
  ];
}

/** Answers what the broker asks about its clients. */
export function createAnswers(ctx: Pick<PluginContext, "agents" | "dispatch" | "has" | "use">) {
  function identify(token: string): Identity | undefined {
    const principal = ctx.has(authenticator) ? ctx.use(authenticator).authenticate(token) : undefined;
    if (principal?.kind === "operator") return { name: principal.id };
    if (principal?.kind !== "agent") return undefined;
    const { id: name, agentId, runId } = principal;
    return { name, agentId, runId };
  }

  async function may(who: Identity, what: keyof typeof NAMES, where: string): Promise<boolean> {
    const principal = principalOf(who);
    if (principal.kind === "agent" && ctx.agents.byRun(principal.runId) === undefined) return false;
    if (what === "publish" && !isTaken(where)) return false;
    const input = what === "publish" ? { topic: where } : { filter: where };
    return ctx.dispatch(NAMES[what], input, principal).then(
      () => true,
      () => false,
    );
  }

  /** As over HTTP: nobody speaks where the daemon does, and what nobody reads is not taken. */
  function isTaken(topic: string): boolean {
    const owner = ownerOf(topic);
    if (topic.split("/")[0] === DAEMON_TOPICS) return false;
    return owner === undefined || ctx.agents.get(owner) !== undefined;
  }

  return async ({ header }: Frame): Promise<object> => {
    if (header["do"] === "identify") return { identity: identify(String(header["token"])) };
    const { who, what, where } = header as { who: Identity; what: keyof typeof NAMES; where: string };
    return { allowed: await may(who, what, where) };
  };
}

function principalOf({ name, agentId, runId }: Identity): Principal {
  if (agentId === undefined || runId === undefined) return { kind: "operator", id: name };
  return { kind: "agent", id: name, agentId, runId };
}
