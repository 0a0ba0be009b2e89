/** Deeper than anything that is read, and far from where writing it as JSON would overflow the stack. */
export const MOST_NESTED = 64;

/** Whether lists and objects lie within each other more than `levels` deep; a circle always does. */
export function nestsDeeperThan(value: unknown, levels: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  return levels === 0 || Object.values(value).some((inner) => nestsDeeperThan(inner, levels - 1));
}
