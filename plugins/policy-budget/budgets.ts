import {
  type Agent,
  ENDED_STATES,
  isOpenStarryError,
  type PluginContext,
  rfc3339,
} from "../../core/index.js";
import { lineage } from "../kit/lineage.js";
import { type Standing, standingsOf } from "./judge.js";

export interface BudgetOptions {
  /** In percent of a budget. */
  warnAt: number;
  graceMs: number;
}

/** The budgets of all agents, and what is done about those that are used up. */
export interface Budgets {
  /** The agent has said what it has used: it counts for its own budget and for those of all above it. */
  reported(agentId: string): void;
  /** Why it may not be started, in words: its own budget is used up, or that of one above it. */
  refusal(agentId: string): string | undefined;
  /** It was deleted. */
  forget(agentId: string): void;
  dispose(): void;
}

export function createBudgets(ctx: PluginContext, { warnAt, graceMs }: BudgetOptions): Budgets {
  const actor = `plugin:${ctx.name}`;
  /** What was told already, by agent. */
  const told = new Map<string, Set<string>>();
  /** Those that are to be stopped: when, and what takes that back. */
  const due = new Map<string, { at: string; cancel: () => void }>();

  const rulesOf = (agentId: string) => ctx.agents.template(agentId)?.template.budget;

  function standings(agentId: string): Standing[] {
    const { spent } = ctx.agents.get(agentId) ?? {};
    const rules = rulesOf(agentId);
    return rules && spent ? standingsOf(rules, spent, warnAt) : [];
  }

  /** Why it is to be stopped, in words. */
  function usedUp(agentId: string): string | undefined {
    if (rulesOf(agentId)?.on_exceed !== "stop") return undefined;
    const full = standings(agentId).find(({ level }) => level === "used_up");
    if (!full) return undefined;
    return `the budget of ${agentId} is used up: ${full.words}; raise budget.${full.limit} in its template and start it again`;
  }

  function look(agentId: string) {
    if (usedUp(agentId) !== undefined && !due.has(agentId)) {
      const cancel = ctx.clock.after(graceMs, () => {
        due.delete(agentId);
        stopAll(agentId);
      });
      due.set(agentId, { at: rfc3339(ctx.clock.now() + graceMs), cancel });
    }
    // Who has no process cannot hear of it, and uses nothing.
    if (ctx.agents.get(agentId)?.pid === undefined) return;
    for (const standing of standings(agentId)) tell(agentId, standing);
  }

  /** Each limit once when it is near, and once when it is reached. */
  function tell(agentId: string, { limit, value, measured, level, words }: Standing) {
    const before = told.get(agentId) ?? new Set();
    const what = `${limit} ${value} ${level}`;
    if (before.has(what)) return;
    told.set(agentId, before.add(what));
    const dueAt = level === "used_up" ? due.get(agentId)?.at : undefined;
    const deed =
      dueAt === undefined
        ? ({ action: "warn", reason: words } as const)
        : ({ action: "stop", due_at: dueAt, reason: `${words}; it is stopped at ${dueAt}` } as const);
    const runId = ctx.agents.get(agentId)?.run_id ?? "";
    ctx.log.warn(
      { agent_id: agentId, limit, value, measured, action: deed.action },
      "an agent uses up its budget",
    );
    attempt(agentId, ctx.reports.limit(agentId, runId, { limit, value, measured, ...deed, actor }));
  }

  /** The agent, and all below it that spend of its budget: also those that would outlive it. */
  function stopAll(agentId: string) {
    const reason = usedUp(agentId);
    // Raised meanwhile, or gone.
    if (reason === undefined) return;
    const spenders = ctx.agents
      .list()
      .filter(({ agent_id }) => lineage(agent_id, ctx.agents).includes(agentId));
    for (const { agent_id } of spenders.filter(isWanted)) {
      attempt(agent_id, ctx.control.stop(agent_id, { actor, reason, cause: "policy" }));
    }
  }

  function attempt(agentId: string, deed: Promise<unknown>) {
    deed.catch((err: unknown) => {
      // It was deleted meanwhile.
      if (isOpenStarryError(err) && ["agent_not_found", "agent_is_deleted"].includes(err.code)) return;
      ctx.log.error({ agent_id: agentId, err }, "what is to be done about a budget failed");
    });
  }

  return {
    reported(agentId) {
      for (const id of lineage(agentId, ctx.agents)) look(id);
    },
    refusal(agentId) {
      for (const id of lineage(agentId, ctx.agents)) {
        const reason = usedUp(id);
        if (reason !== undefined) return reason;
      }
      return undefined;
    },
    forget(agentId) {
      told.delete(agentId);
      due.get(agentId)?.cancel();
      due.delete(agentId);
    },
    dispose() {
      for (const { cancel } of due.values()) cancel();
      due.clear();
    },
  };
}

function isWanted({ state, desired }: Agent): boolean {
  return desired === "running" && !ENDED_STATES.includes(state);
}
