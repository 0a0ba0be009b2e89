import { z } from "zod";
import { definePlugin, type PluginContext, type Probe, probe, probeRunner } from "../../core/index.js";
import { createPerRunHealth, type PerRunHealth } from "../kit/per-run-health.js";
import { type SignOptions, signOptions } from "../kit/probe-loop.js";
import { loadDatagrams } from "./datagrams.js";
import { createHearing, type Hearing } from "./hearing.js";
import { ownFolder } from "./own-folder.js";

const options = z.strictObject({
  /** Where the sockets of agents are made. */
  folder: z.string().startsWith("/").max(60).optional(),
});

/** The probe `notify`: the agent speaks the protocol of sd_notify(3) to a socket of its own. */
export default definePlugin({
  name: "probe-notify",
  apiVersion: 1,
  provides: [probe],
  options,
  setup(ctx, { folder = ownFolder(ctx.dataDir) }) {
    const native = loadDatagrams();
    if (!native) {
      ctx.provide(probe, UNAVAILABLE);
      return;
    }
    const faults = createPerRunHealth(ctx.daemon);
    const hearing = createHearing(ctx, native, folder);
    ctx.provide(probe, hearing.probe);
    ctx.hooks.beforeSpawn.tap("make its socket", (spec) => {
      const { agentId, runId, user, env } = spec;
      if (!speaks(ctx, agentId)) return spec;
      const NOTIFY_SOCKET = hearing.open({ agentId, runId, user, again: false });
      return { ...spec, env: { ...env, NOTIFY_SOCKET, ...watchdogOf(ctx, agentId) } };
    });
    ctx.hooks.afterExit.tap("remove its socket", ({ agent, run_id }) => {
      faults.end(run_id);
      hearing.close(agent.agent_id, run_id);
    });
    let stopListening = () => {};
    return {
      start() {
        // What was made for a start that came to nothing goes with the agent.
        stopListening = ctx.events.on("agent.deleted", ({ agent_id }) => {
          if (agent_id !== undefined) hearing.close(agent_id);
        });
        openAgain(ctx, hearing, faults);
      },
      stop() {
        stopListening();
        hearing.release();
      },
    };
  },
});

const UNAVAILABLE: Probe = {
  name: "notify",
  roles: ["readiness", "liveness"],
  options: z.strictObject(signOptions),
  unavailable: "the package koffi, which it needs, is not installed for this machine",
  watch() {},
};

function speaks(ctx: PluginContext, agentId: string): boolean {
  const template = ctx.agents.template(agentId)?.template;
  return template?.readiness?.type === "notify" || template?.liveness?.type === "notify";
}

const USEC_PER_MS = 1_000;

function watchdogOf(ctx: PluginContext, agentId: string): Record<string, string> {
  const liveness = ctx.use(probeRunner).probeOf(agentId, "liveness");
  if (liveness?.probe.name !== "notify") return {};
  const { interval, misses } = liveness.options as SignOptions;
  return { WATCHDOG_USEC: String(interval * misses * USEC_PER_MS) };
}

/** The runs of earlier daemons that live. One agent's trouble is not the others'. */
function openAgain(ctx: PluginContext, hearing: Hearing, faults: PerRunHealth): void {
  const live = ctx.agents
    .list()
    .flatMap(({ agent_id, run_id, state }) =>
      run_id !== undefined && ["starting", "running", "stopping"].includes(state)
        ? [{ agent_id, run_id }]
        : [],
    );
  hearing.sweep(new Set(live.map(({ run_id }) => run_id)));
  for (const { agent_id: agentId, run_id: runId } of live) {
    if (!speaks(ctx, agentId)) continue;
    try {
      hearing.open({ agentId, runId, user: ctx.agents.template(agentId)?.template.user, again: true });
    } catch (error) {
      ctx.log.error({ agent_id: agentId, err: error }, "its notify socket could not be bound again");
      faults.add(runId, `agent ${agentId} cannot be heard: ${(error as Error).message}`);
    }
  }
}
