import type { DaemonEvent, MessageBus, PluginContext } from "../../core/index.js";
import { DAEMON_TOPICS } from "../kit/topics.js";

/** While the bus cannot be used it is looked so often whether it can again. */
const LOOK_MS = 500;
/** Events of a time without the bus that are made up for: more would push out what others have to read. */
const MAX_MADE_UP = 1_000;
/** With so many on their way to a slow bus, the rest is read from the journal later. */
const MAX_UNDER_WAY = 1_000;
/** Topics that are still to be dropped, for so many agents and some more. */
const MAX_OWED = 30_000;

/**
 * What the daemon says on the bus: its events, and who is there. An agent's topics begin empty: what an
 * earlier one of its id left there is dropped. Nothing is kept here for a bus that cannot be used: what
 * happened meanwhile is read from the journal when it can again, in order; an event may come twice then.
 */
export function createAnnouncer(
  ctx: Pick<PluginContext, "log" | "agents" | "journal" | "principal" | "clock">,
  bus: MessageBus,
) {
  /** All events up to here are told, and later ones are not told as they come; absent: they are. */
  let behindFrom: number | undefined;
  let underWay = 0;
  let isCatchingUp = false;
  let owesPresence = false;
  const owed = new Set<string>();
  let cancelLook: (() => void) | undefined;

  async function say(topic: string, value: unknown, keep = true): Promise<void> {
    const payload = Buffer.from(JSON.stringify(value));
    await bus.publish({ topic, payload, from: ctx.principal.id }, { keep });
  }

  async function tellPresence(agent_id: string, run_id: string | undefined, present: boolean): Promise<void> {
    await say(`${DAEMON_TOPICS}/presence/${agent_id}`, { agent_id, run_id, present });
  }

  async function tell(event: DaemonEvent): Promise<void> {
    const { type, agent_id, run_id, data } = event;
    const ofAgent = agent_id === undefined ? "" : `/${agent_id}`;
    // Signs of life come often, and would push out what others have to read.
    const told = [say(`${DAEMON_TOPICS}/events/${type}${ofAgent}`, event, type !== "agent.heartbeat")];
    const isBack = type === "agent.state" && data["to"] === "running";
    if (agent_id !== undefined && (isBack || type === "agent.exited")) {
      told.push(tellPresence(agent_id, run_id, isBack));
    }
    await Promise.all(told);
  }

  function fallBehind(after: number, err?: unknown): void {
    behindFrom = Math.min(behindFrom ?? after, after);
    if (err !== undefined) ctx.log.debug({ err }, "the message bus did not take what the daemon says");
    lookLater();
  }

  /** At once, in its turn: whoever uses the bus next finds it done. */
  function payOwed(): void {
    if (bus.health() !== undefined) return;
    for (const filter of owed) {
      owed.delete(filter);
      bus.drop(filter).catch(() => owe(filter));
    }
  }

  function owe(filter: string): void {
    owed.add(filter);
    for (const oldest of owed) {
      if (owed.size <= MAX_OWED) break;
      owed.delete(oldest);
    }
    lookLater();
  }

  function lookLater(): void {
    cancelLook ??= ctx.clock.after(LOOK_MS, () => {
      cancelLook = undefined;
      payOwed();
      void catchUp().then(() => {
        if (behindFrom !== undefined || owesPresence || owed.size > 0) lookLater();
      });
    });
  }

  async function catchUp(): Promise<void> {
    if (isCatchingUp || bus.health() !== undefined) return;
    isCatchingUp = true;
    try {
      while (behindFrom !== undefined) {
        const from: number = Math.max(behindFrom, ctx.journal.lastEventId() - MAX_MADE_UP);
        const { events } = await ctx.journal.events({ after: from, limit: 100 });
        await Promise.all(events.filter(isWorthTelling).map(tell));
        behindFrom = events.at(-1)?.id ?? ctx.journal.lastEventId();
        if (behindFrom >= ctx.journal.lastEventId()) behindFrom = undefined;
      }
      if (owesPresence) await tellWhoRuns();
      owesPresence = false;
    } catch (err) {
      ctx.log.debug({ err }, "what the daemon had to say could not be made up for yet");
    } finally {
      isCatchingUp = false;
    }
  }

  /** Not a sign of life of long ago, and nothing of an earlier agent of an id that there is again. */
  function isWorthTelling({ type, agent_id, at }: DaemonEvent): boolean {
    const born = agent_id === undefined ? undefined : ctx.agents.get(agent_id)?.created_at;
    return type !== "agent.heartbeat" && (born === undefined || at >= born);
  }

  async function tellWhoRuns(): Promise<void> {
    const running = ctx.agents.list().filter(({ state }) => state === "running");
    await Promise.all(running.map(({ agent_id, run_id }) => tellPresence(agent_id, run_id, true)));
  }

  return {
    onEvent(event: DaemonEvent): void {
      const { type, agent_id } = event;
      if (type === "agent.created") {
        owe(`${DAEMON_TOPICS}/events/+/${agent_id}`);
        owe(`${DAEMON_TOPICS}/presence/${agent_id}`);
      }
      if (type === "agent.created" || type === "agent.deleted") owe(`agents/${agent_id}/#`);
      payOwed();
      if (behindFrom !== undefined) return;
      if (bus.health() !== undefined || underWay >= MAX_UNDER_WAY) {
        fallBehind(event.id - 1);
        return;
      }
      underWay++;
      tell(event)
        .catch((err: unknown) => fallBehind(event.id - 1, err))
        .finally(() => underWay--);
    },
    /** Who ran on while there was no daemon. */
    tellWhoIsThere(): void {
      owesPresence = true;
      void catchUp().then(() => owesPresence && lookLater());
    },
    /** Before anything is asked of the bus: what has to be dropped is dropped first. */
    payOwed,
    stop: () => cancelLook?.(),
  };
}
