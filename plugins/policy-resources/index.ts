import { z } from "zod";
import {
  type Agent,
  type DaemonEvent,
  definePlugin,
  duration,
  formatSize,
  isOpenStarryError,
  type LimitReport,
  type PluginContext,
  percent,
  size,
  spawner,
  templateSection,
} from "../../core/index.js";
import { REARMED_BELOW } from "./run-judge.js";
import { resourcesSection } from "./section.js";
import { createWatch, type WatchedRun } from "./watch.js";

const options = z.strictObject({
  /** CPU is over `cpu_max` when it is so on average over this time: one sample may be a moment's peak. */
  cpu_window: duration().default(30_000),
  /** Who uses no more than this of a core is idle. */
  idle_cpu: percent().default(1),
  /** The daemon's own memory; over it, it says so. It goes on: nothing is safer without it. */
  daemon_memory_max: size().default(512 * 2 ** 20),
});

/** Between two looks at the daemon's own memory. */
const DAEMON_LOOK_MS = 10_000;

/** Keeps runs within those of their limits that the operating system does not hold. */
export default definePlugin({
  name: "policy-resources",
  apiVersion: 1,
  optional: [spawner],
  provides: [templateSection],
  options,
  setup(ctx, { cpu_window, idle_cpu, daemon_memory_max }) {
    ctx.provide(templateSection, resourcesSection);
    const watch = createWatch({
      clock: ctx.clock,
      cpuWindowMs: cpu_window,
      idleCpuPercent: idle_cpu,
      exceeded: (run, report) => act(ctx, run, report),
      lastLine: (agent) => lastLine(ctx, agent),
      hasLiveChild: (id) =>
        ctx.agents.list().some(({ parent_id, pid }) => parent_id === id && pid !== undefined),
    });
    ctx.hooks.afterSpawn.tap("watch", ({ agent }) => watch.begin(agent));
    ctx.hooks.onResourceSample.tap("compare with limits", ({ samples }) => watch.see(samples));
    ctx.hooks.afterExit.tap("see to what the kernel ended", ({ agent, run_id, run }) => {
      watch.end(run_id);
      return run.exit.cause === "oom" ? leaveStopped(ctx, agent, run_id) : undefined;
    });
    let unsubscribe = () => {};
    let cancelLook = () => {};
    const look = createDaemonLook(ctx, daemon_memory_max);
    const lookAtDaemon = () => {
      look();
      cancelLook = ctx.clock.after(DAEMON_LOOK_MS, lookAtDaemon);
    };
    return {
      start() {
        unsubscribe = ctx.events.onAny((event) => hear(watch, event));
        lookAtDaemon();
      },
      stop() {
        unsubscribe();
        cancelLook();
        watch.endAll();
      },
    };
  },
});

/** Not awaited: what is measured next does not depend on it. */
function act(ctx: PluginContext, { agent, runId }: WatchedRun, report: LimitReport): void {
  const { agent_id: id } = agent;
  const actor = `plugin:${ctx.name}`;
  const intent = { actor, reason: report.reason, cause: "policy", run_id: runId } as const;
  const deeds: Partial<Record<LimitReport["action"], () => Promise<unknown>>> = {
    throttle: () => ctx.control.throttle(id, report.value, intent),
    stop: () => ctx.control.stop(id, intent),
    restart: () => ctx.control.restart(id, intent),
  };
  ctx.log.warn({ agent_id: id, run_id: runId, ...report }, "an agent is over a limit");
  // The end of a run waits for no journal, and so not for the event either.
  for (const deed of [ctx.reports.limit(id, runId, { ...report, actor }), deeds[report.action]?.()]) {
    deed?.catch((err: unknown) => {
      // It was deleted, or ended, in the meantime.
      if (isOpenStarryError(err) && ["agent_not_found", "agent_not_running"].includes(err.code)) return;
      ctx.log.error({ agent_id: id, err }, "what is to be done about a limit failed");
    });
  }
}

/**
 * The kernel of the operating system has ended it for its memory, which by itself is a failure like any
 * other. Where it was to be stopped, it is not started again.
 */
async function leaveStopped(ctx: PluginContext, ended: Agent, runId: string): Promise<void> {
  const { agent_id, limits, last_exit } = ended;
  const agent = ctx.agents.get(agent_id);
  const willStart = agent?.state === "pending" || agent?.state === "backoff";
  if (limits?.memory_max?.on_exceed !== "stop" || !willStart) return;
  const reason = last_exit?.reason ?? "it was killed for want of memory";
  await ctx.control.stop(agent_id, { actor: `plugin:${ctx.name}`, reason, cause: "policy", run_id: runId });
}

function hear(watch: ReturnType<typeof createWatch>, { type, run_id = "", data }: DaemonEvent): void {
  if (type === "agent.heartbeat") watch.alive(run_id);
  if (type === "agent.limit" && data["action"] === "refuse")
    watch.refused(run_id, data as unknown as LimitReport);
}

/** The cursor of the last line that it printed; `undefined` when it printed none. */
async function lastLine(ctx: PluginContext, agent: Agent): Promise<string | undefined> {
  const lines = ctx.use(spawner).get(agent.spawner)?.logs?.(agent.agent_id, { tail: 1 });
  for await (const line of lines ?? []) return line.cursor;
  return undefined;
}

/** Says once that the daemon uses too much, until it fell well below. */
function createDaemonLook(ctx: PluginContext, max: number): () => void {
  let over = false;
  return () => {
    const { rss } = process.memoryUsage();
    if (!over && rss > max)
      ctx.daemon.degraded(`the daemon uses ${formatSize(rss)} of memory, over ${formatSize(max)}`);
    if (over && rss < max * REARMED_BELOW) ctx.daemon.recovered();
    over = rss > max || (over && rss >= max * REARMED_BELOW);
  };
}
