import type { ResolvedPlugin } from "./kernel.js";

export function orderPlugins(plugins: readonly ResolvedPlugin[]): {
  ordered: ResolvedPlugin[];
  displaced: string[];
} {
  const ordered: ResolvedPlugin[] = [];
  const rest = [...plugins];
  while (rest.length > 0) {
    const index = rest.findIndex(({ definition }) =>
      [...(definition.requires ?? []), ...(definition.optional ?? [])].every(
        (slot) =>
          !rest.some(
            (other) =>
              other.definition !== definition && other.definition.provides?.some(({ id }) => id === slot.id),
          ),
      ),
    );
    ordered.push(...rest.splice(Math.max(0, index), 1));
  }
  return { ordered, displaced: [] };
}
