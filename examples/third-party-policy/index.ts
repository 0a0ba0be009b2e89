import { definePlugin, formatSize, type ResourceSample, size } from "openstarry-daemon";
import { z } from "zod";

/** The agents of a team share so much memory. When they use more, the largest of them is stopped. */
export default definePlugin({
  name: "team-memory",
  apiVersion: 1,
  version: "1.0.0",
  options: z.strictObject({ label: z.string().min(1).default("team"), memory_max: size() }),
  setup(ctx, { label, memory_max: max }) {
    ctx.hooks.onResourceSample.tap("weigh the teams", async ({ samples }) => {
      const teams = new Map<string, ResourceSample[]>();
      for (const sample of samples) {
        const team = ctx.agents.get(sample.agent_id)?.labels[label];
        if (team !== undefined) teams.set(team, [...(teams.get(team) ?? []), sample]);
      }
      for (const [team, members] of teams) {
        const used = members.reduce((sum, { memory_bytes }) => sum + memory_bytes, 0);
        const [largest] = members.sort((a, b) => b.memory_bytes - a.memory_bytes);
        // One at a time: who is on the way out gives its memory back first.
        const isEnding = members.some(({ agent_id }) => ctx.agents.get(agent_id)?.state === "stopping");
        if (!largest || used <= max || isEnding) continue;
        const share = `${formatSize(largest.memory_bytes)} of it is this one's, the most of ${members.length}`;
        const reason = `team ${team} uses ${formatSize(used)}, over ${formatSize(max)}; ${share}`;
        const actor = `plugin:${ctx.name}`;
        await ctx.control.stop(largest.agent_id, { actor, reason, cause: "policy", run_id: largest.run_id });
      }
    });
  },
});
