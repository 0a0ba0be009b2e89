import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { DaemonEvent, Exit } from "../../../core/index.js";
import type { Kind } from "./kinds.js";
import type { Model } from "./model.js";

interface Life {
  kind: Kind | undefined;
  /** Ends that nobody had asked for: what restarts are counted from. */
  ownEnds: number;
}

/** What the events tell, held against what was done and what the agents themselves left as evidence. */
export interface History {
  /** Takes those of the events that are new. */
  take(events: readonly DaemonEvent[]): void;
  /** What was wrong with them. */
  readonly complaints: readonly string[];
  /** Of agents that exist by what the events say. */
  readonly lives: ReadonlyMap<string, Life>;
  /** The runs that have begun, by what they say themselves. */
  begun(): string[];
  /** Of these, those that are neither live nor told to have ended, and those that began twice. */
  unaccounted(begun: readonly string[], live: ReadonlySet<string>): string[];
  readonly exits: number;
}

export function createHistory(evidence: string, kinds: readonly Kind[], model: Model): History {
  const lives = new Map<string, Life>();
  const exits = new Map<string, string>();
  const complaints: string[] = [];
  let seen = 0;

  const begun = () => linesOf(join(evidence, "starts")).map((line) => line.split(" ")[1] ?? "");

  function takeOne(event: DaemonEvent): string[] {
    const { type, agent_id = "", data } = event;
    if (type === "agent.created") {
      const kind = kinds.find(({ template_id }) => template_id === data["template_id"]);
      lives.set(agent_id, { kind, ownEnds: 0 });
    }
    if (type === "agent.deleted") lives.delete(agent_id);
    if (type !== "agent.exited") return [];
    const life = lives.get(agent_id);
    const exit = data as unknown as Exit;
    if (!life) return [`${agent_id} ended and does not exist: ${JSON.stringify(exit)}`];
    // None of the suite's kinds.
    if (!life.kind) return [];
    const runId = exit.run_id ?? "";
    const again = exits.get(runId);
    exits.set(runId, JSON.stringify(exit));
    if (exit.cause === "self") life.ownEnds++;
    const wrong = again === undefined ? wrongWith(agent_id, exit, life.kind) : `it ended before: ${again}`;
    return wrong === undefined
      ? []
      : [`${agent_id}, a ${life.kind.template_id}: ${wrong}: ${JSON.stringify(exit)}`];
  }

  function wrongWith(agentId: string, exit: Exit, { is, ends }: Kind): string | undefined {
    const runId = exit.run_id ?? "";
    const asked = exit.cause !== "self" || model.unheard.has(agentId);
    switch (exit.kind) {
      case "lost":
        return model.unwitnessed.has(runId) ? undefined : "how it ended is not known";
      case "spawn_failed":
        if (exit.cause !== "daemon_stop") return "its start failed";
        return begun().includes(runId) ? "it ran, whatever is said" : undefined;
      case "exited":
        return exit.code === ends?.code ? undefined : "it does not end with that code";
      case "signaled": {
        if (exit.signal === "SIGKILL" && (asked || model.killed.has(runId))) return undefined;
        // A stubborn one only ignores it once it has come so far.
        const heeds = !is.includes("stubborn") || !begun().includes(runId);
        if (exit.signal === "SIGTERM" && asked && heeds) return undefined;
        return "nobody sent it that signal";
      }
    }
  }

  return {
    lives,
    complaints,
    get exits() {
      return exits.size;
    },
    take(events) {
      const fresh = events.slice(seen);
      seen = events.length;
      complaints.push(...fresh.flatMap(takeOne));
    },
    begun,
    unaccounted(runs, live) {
      const known = new Set<string>();
      return runs.flatMap((runId) => {
        if (known.has(runId)) return [`run ${runId} was started twice`];
        known.add(runId);
        return live.has(runId) || exits.has(runId) ? [] : [`run ${runId} ran, and nobody tells how it ended`];
      });
    },
  };
}

/** Empty when there is no such file. */
export function linesOf(path: string): string[] {
  try {
    return readFileSync(path, "utf8").split("\n").filter(Boolean);
  } catch {
    return [];
  }
}
