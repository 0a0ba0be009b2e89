import { createHash } from "node:crypto";
import type { ConsumerInfo } from "@nats-io/jetstream";
import type { Clock, ConsumeOptions } from "../../core/index.js";
import { topicMatches } from "../kit/topics.js";
import { isNoConsumer, unavailable, wordsOf } from "./failures.js";
import { createGroup, type Group } from "./group.js";
import type { Names } from "./kept-stream.js";
import type { Session } from "./session.js";
import { filterSubjectOf } from "./subjects.js";

/** The server's patience beyond a member's own time, which is kept here. */
const SLACK_MS = 1_000;
const NANOS = 1e6;

export interface GroupsOptions {
  names: Names;
  maxGroups: number;
  clock: Pick<Clock, "after">;
  session: () => Session;
}

export type Groups = ReturnType<typeof createGroups>;

type Name = Pick<ConsumeOptions, "filter" | "group">;

/** The groups of the bus: each is a durable consumer of the stream. */
export function createGroups({ names, maxGroups, clock, session }: GroupsOptions) {
  /** By consumer; the one that was left last is the last to be forgotten. */
  const groups = new Map<string, Group>();
  /** How long the server waits for those of a group: never shorter than a member's own time. */
  const patienceMs = new WeakMap<Group, number>();

  function add(name: Name, ackWaitMs: number): Group {
    const consumer = consumerOf(name);
    const group = createGroup({
      ...name,
      consumer: `${names.stream}.${consumer}`,
      clock,
      session,
    });
    patienceMs.set(group, ackWaitMs);
    groups.set(consumer, group);
    return group;
  }

  /** One that another daemon has made on the same server. */
  async function found({ jsm }: Session, name: Name): Promise<Group | undefined> {
    try {
      const { config } = await jsm.consumers.info(names.stream, consumerOf(name));
      return add(name, (config.ack_wait ?? 0) / NANOS);
    } catch (error) {
      if (isNoConsumer(error)) return undefined;
      throw error;
    }
  }

  async function make({ jsm }: Session, of: ConsumeOptions, after: number): Promise<Group> {
    for (const [consumer, group] of groups) {
      if (groups.size < maxGroups) break;
      if (group.isIdle()) await forget(consumer);
    }
    const ackWaitMs = of.ackWaitMs + SLACK_MS;
    await jsm.consumers.add(names.stream, {
      durable_name: consumerOf(of),
      description: JSON.stringify({ filter: of.filter, group: of.group }),
      filter_subject: `${names.kept}.${filterSubjectOf(of.filter)}`,
      deliver_policy: "by_start_sequence",
      opt_start_seq: after + 1,
      ack_policy: "explicit",
      ack_wait: ackWaitMs * NANOS,
      // How many a member may have is held here; what waits for its next delivery counts too.
      max_ack_pending: -1,
      max_waiting: 10_000,
    });
    return add(of, ackWaitMs);
  }

  async function forget(consumer: string): Promise<void> {
    const group = groups.get(consumer);
    groups.delete(consumer);
    group?.remove();
    try {
      await session().jsm.consumers.delete(names.stream, consumer);
    } catch (error) {
      if (!isNoConsumer(error)) throw error;
    }
  }

  const attempt = async <T>(act: () => Promise<T>): Promise<T> => {
    try {
      return await act();
    } catch (error) {
      throw unavailable(wordsOf(error), error);
    }
  };

  return {
    /** Those that the server knows, at the beginning of a session. */
    async load({ jsm }: Session): Promise<void> {
      const found = new Set<string>();
      for await (const info of jsm.consumers.list(names.stream)) {
        const name = nameOf(info);
        if (!name) continue;
        found.add(info.name);
        if (!groups.has(info.name)) add(name, (info.config.ack_wait ?? 0) / NANOS);
      }
      for (const [consumer, group] of groups) {
        if (found.has(consumer)) continue;
        groups.delete(consumer);
        group.remove();
      }
    },
    /** The group, made where there is none: then behind the sequence that `start` answers. */
    open: (on: Session, of: ConsumeOptions, start: () => Promise<number>): Promise<Group> =>
      attempt(async () => {
        const known = groups.get(consumerOf(of));
        const isKnown = known !== undefined && !known.isRemoved();
        const group = isKnown ? known : ((await found(on, of)) ?? (await make(on, of, await start())));
        const ackWaitMs = Math.max(of.ackWaitMs, group.longestMs()) + SLACK_MS;
        if (patienceMs.get(group) !== ackWaitMs) {
          await on.jsm.consumers.update(names.stream, consumerOf(of), { ack_wait: ackWaitMs * NANOS });
          patienceMs.set(group, ackWaitMs);
        }
        return group;
      }),
    left(group: Group): void {
      const consumer = consumerOf(group);
      if (groups.get(consumer) !== group) return;
      groups.delete(consumer);
      groups.set(consumer, group);
    },
    remove: (name: Name) => attempt(() => forget(consumerOf(name))),
    drop: (filter: string) =>
      attempt(async () => {
        for (const [consumer, group] of [...groups])
          if (topicMatches(filter, group.filter)) await forget(consumer);
      }),
    leaveAll(): void {
      for (const group of groups.values()) group.leaveAll();
    },
    ringAll(): void {
      for (const group of groups.values()) group.ringAll();
    },
  };
}

function consumerOf({ filter, group }: Name): string {
  return `g-${createHash("sha256")
    .update(JSON.stringify([filter, group]))
    .digest("hex")
    .slice(0, 32)}`;
}

/** `undefined` for a consumer that somebody else has made. */
function nameOf({ name, config }: ConsumerInfo): Name | undefined {
  try {
    const { filter, group } = JSON.parse(config.description ?? "") as Partial<Name>;
    if (typeof filter !== "string" || typeof group !== "string") return undefined;
    return consumerOf({ filter, group }) === name ? { filter, group } : undefined;
  } catch {
    // No description of ours.
    return undefined;
  }
}
