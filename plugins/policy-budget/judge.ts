import type { BudgetName, Usage } from "../../core/index.js";
import type { BudgetRules } from "./section.js";

/** How far one of the two limits of a budget is used. */
export interface Standing {
  readonly limit: BudgetName;
  readonly value: number;
  readonly measured: number;
  /** `near`: the part that is told of has been reported. `used_up`: all of it has. */
  readonly level: "near" | "used_up";
  /** In words, with the figures. */
  readonly words: string;
}

/** The limits of a budget that are nearly or wholly used. `warnAt`: from how many percent on. Pure. */
export function standingsOf(budget: BudgetRules, spent: Usage, warnAt: number): Standing[] {
  const { tokens_max, cost_max_usd } = budget;
  const tokens = spent.input_tokens + spent.output_tokens;
  return [
    ...standing("tokens_max", tokens_max, tokens, warnAt, (n) => `${Math.round(n)} tokens`),
    ...standing("cost_max_usd", cost_max_usd, spent.cost_usd, warnAt, (n) => `$${Number(n.toFixed(4))}`),
  ];
}

function standing(
  limit: BudgetName,
  value: number | undefined,
  measured: number,
  warnAt: number,
  format: (amount: number) => string,
): Standing[] {
  if (value === undefined || measured < (value * warnAt) / 100) return [];
  const percent = Math.floor((measured / value) * 100);
  const words = `${format(measured)} reported of ${limit} ${format(value)} (${percent}%), those below it included`;
  return [{ limit, value, measured, level: measured < value ? "near" : "used_up", words }];
}
