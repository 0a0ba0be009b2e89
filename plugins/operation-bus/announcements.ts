import type { DaemonEvent, MessageBus, PluginContext } from "../../core/index.js";
import { DAEMON_TOPICS } from "../_shared/topics.js";

/**
 * What the daemon says on the bus: its events, and who is there. An agent's topics begin empty: what an
 * earlier one of its id left there is dropped. While the bus cannot be used nothing is said; the journal
 * has all events.
 */
export function createAnnouncer(ctx: Pick<PluginContext, "log" | "agents" | "principal">, bus: MessageBus) {
  const attempt = (what: string, done: Promise<unknown>) => {
    done.catch((err: unknown) => ctx.log.debug({ err, what }, "the message bus did not take it"));
  };
  const say = (topic: string, value: unknown, keep = true) => {
    const payload = Buffer.from(JSON.stringify(value));
    attempt(topic, bus.publish({ topic, payload, from: ctx.principal.id }, { keep }));
  };
  const tellPresence = (agent_id: string, run_id: string | undefined, present: boolean) =>
    say(`${DAEMON_TOPICS}/presence/${agent_id}`, { agent_id, run_id, present });
  const drop = (filter: string) => attempt(filter, bus.drop(filter));

  return {
    onEvent(event: DaemonEvent): void {
      if (bus.health() !== undefined) return;
      const { type, agent_id, run_id, data } = event;
      if (agent_id === undefined) {
        say(`${DAEMON_TOPICS}/events/${type}`, event);
        return;
      }
      if (type === "agent.created") {
        drop(`agents/${agent_id}/#`);
        drop(`${DAEMON_TOPICS}/events/+/${agent_id}`);
        drop(`${DAEMON_TOPICS}/presence/${agent_id}`);
      }
      // Signs of life come often, and would push out what others have to read.
      say(`${DAEMON_TOPICS}/events/${type}/${agent_id}`, event, type !== "agent.heartbeat");
      if (type === "agent.state" && data["to"] === "running") tellPresence(agent_id, run_id, true);
      if (type === "agent.exited") tellPresence(agent_id, run_id, false);
      if (type === "agent.deleted") drop(`agents/${agent_id}/#`);
    },
    /** Who ran on while there was no daemon. */
    tellWhoIsThere(): void {
      if (bus.health() !== undefined) return;
      const running = ctx.agents.list().filter(({ state }) => state === "running");
      for (const { agent_id, run_id } of running) tellPresence(agent_id, run_id, true);
    },
  };
}
