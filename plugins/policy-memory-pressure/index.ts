import { definePlugin, SpawnDeferred, templateSection } from "../../core/index.js";
import { createAdmission } from "./admission.js";
import { createGuard } from "./guard.js";
import { options } from "./options.js";
import { createRanks } from "./ranks.js";
import { prioritySection } from "./section.js";
import { PINNED } from "./victim.js";

/** Lets agents start only as fast as the machine can bear, and stops some when it has no memory left. */
export default definePlugin({
  name: "policy-memory-pressure",
  apiVersion: 1,
  provides: [templateSection],
  options,
  setup(ctx, given) {
    ctx.provide(templateSection, prioritySection);
    const priorityOf = createRanks(ctx.agents);
    const guard = createGuard(ctx, given, priorityOf);
    const admission = createAdmission(
      { maxRunning: given.max_running, maxStarting: given.max_starting, spacingMs: given.spacing },
      { monotonic: ctx.clock.monotonic, agents: ctx.agents.list, closed: () => guard.wait },
    );
    // The last of all: whoever is let through takes a place, and nobody else should refuse it then.
    ctx.hooks.beforeSpawn.tap({ name: "wait for room", stage: "LAST" }, (spec) => {
      const priority = priorityOf(spec.agentId);
      if (priority >= PINNED) {
        admission.letThrough(spec.agentId);
        return spec;
      }
      const wait = admission.ask(spec.agentId, priority);
      if (wait) throw new SpawnDeferred(wait.reason, wait);
      return spec;
    });
    ctx.hooks.onResourceSample.tap("see who is idle", ({ samples }) => guard.see(samples));
    let cancel = () => {};
    const look = () => {
      guard.look();
      admission.tidy();
      cancel = ctx.clock.after(given.interval, look);
    };
    return {
      start() {
        if (given.on_pressure !== "ignore") look();
      },
      stop: () => cancel(),
    };
  },
});
