import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import {
  definePlugin,
  isOpenStarryError,
  type PluginContext,
  probe,
  type SpawnSpec,
} from "../../core/index.js";
import { type SignOptions, signOptions } from "../_shared/probe-loop.js";
import { findUser } from "../_shared/users.js";
import { loadDatagrams } from "./datagrams.js";
import { createLatestWords } from "./latest-words.js";
import { createNotifyProbe } from "./notify-probe.js";
import { createNotifySockets } from "./sockets.js";

const options = z.strictObject({
  /** Where the sockets of agents are made. */
  folder: z.string().startsWith("/").max(60).optional(),
});

const STATUS_EVERY_MS = 1_000;
const USEC_PER_MS = 1_000;

/** The probe `notify`: the agent speaks the protocol of sd_notify(3) to a socket of its own. */
export default definePlugin({
  name: "probe-notify",
  apiVersion: 1,
  provides: [probe],
  options,
  setup(ctx, { folder }) {
    const native = loadDatagrams();
    if (!native) {
      ctx.provide(probe, {
        name: "notify",
        roles: ["readiness", "liveness"],
        options: z.strictObject(signOptions),
        unavailable: "the package koffi, which it needs, is not installed for this machine",
        watch() {},
      });
      return;
    }
    const sockets = createNotifySockets({
      clock: ctx.clock,
      native,
      folder: folder ?? ownFolder(ctx.dataDir),
    });
    const words = createLatestWords(ctx.clock, STATUS_EVERY_MS, (agentId, runId, status) =>
      passOn(ctx, agentId, runId, status),
    );
    const notify = createNotifyProbe({
      clock: ctx.clock,
      log: ctx.log,
      status: words.say,
      startTimeoutMs: (agentId) => ctx.agents.template(agentId)?.template.readiness?.timeoutMs ?? 0,
    });
    /** The run that each agent's socket is of. */
    const current = new Map<string, string>();

    function open(agentId: string, runId: string, user: string | undefined, again: boolean) {
      close(agentId);
      const uid = user === undefined ? (process.geteuid?.() ?? 0) : findUser(user).uid;
      sockets.open(runId, uid, (datagram) => notify.receive(runId, datagram));
      notify.add(runId, { agentId, uid, again });
      current.set(agentId, runId);
    }
    function close(agentId: string) {
      const runId = current.get(agentId);
      if (runId === undefined) return;
      current.delete(agentId);
      sockets.close(runId);
      notify.remove(runId);
      words.end(runId);
    }

    ctx.provide(probe, notify.probe);
    ctx.hooks.beforeSpawn.tap("make its socket", (spec) => {
      if (!speaks(ctx, spec.agentId)) return spec;
      open(spec.agentId, spec.runId, spec.user, false);
      return { ...spec, env: { ...spec.env, ...variables(ctx, spec, sockets.pathOf(spec.runId)) } };
    });
    ctx.hooks.afterExit.tap("remove its socket", ({ agent, run_id }) => {
      if (current.get(agent.agent_id) === run_id) close(agent.agent_id);
    });
    let stopListening = () => {};
    return {
      start() {
        // What was made for a start that came to nothing goes with the agent.
        stopListening = ctx.daemon.onEvent(({ type, agent_id }) => {
          if (type === "agent.deleted" && agent_id !== undefined) close(agent_id);
        });
        const live = ctx.agents.list().filter(({ pid, run_id }) => pid !== undefined && run_id !== undefined);
        sockets.sweep(new Set(live.map(({ run_id }) => String(run_id))));
        for (const { agent_id, run_id } of live) {
          if (speaks(ctx, agent_id))
            reopen(ctx, agent_id, () => open(agent_id, String(run_id), userOf(ctx, agent_id), true));
        }
      },
      stop() {
        stopListening();
        current.clear();
        sockets.release();
      },
    };
  },
});

/** A folder of this home's own: in the home itself the path could be too long, and other users kept out. */
function ownFolder(home: string): string {
  const tag = createHash("sha256").update(home).digest("hex").slice(0, 12);
  return join(process.getuid?.() === 0 ? "/run" : tmpdir(), `openstarry-notify-${tag}`);
}

function speaks(ctx: PluginContext, agentId: string): boolean {
  const template = ctx.agents.template(agentId)?.template;
  return template?.readiness?.type === "notify" || template?.liveness?.type === "notify";
}

function userOf(ctx: PluginContext, agentId: string): string | undefined {
  return ctx.agents.template(agentId)?.template.user;
}

function variables(ctx: PluginContext, { agentId }: SpawnSpec, path: string): Record<string, string> {
  const liveness = ctx.agents.probe(agentId, "liveness");
  if (liveness?.probe.name !== "notify") return { NOTIFY_SOCKET: path };
  const { interval, misses } = liveness.options as SignOptions;
  return { NOTIFY_SOCKET: path, WATCHDOG_USEC: String(interval * misses * USEC_PER_MS) };
}

/** One agent's trouble is not the daemon's. */
function reopen(ctx: PluginContext, agentId: string, open: () => void): void {
  try {
    open();
  } catch (error) {
    ctx.log.error({ agent_id: agentId, err: error }, "its notify socket could not be bound again");
    ctx.daemon.degraded(`agent ${agentId} cannot be heard: ${(error as Error).message}`);
  }
}

function passOn(ctx: PluginContext, agentId: string, runId: string, status: string): void {
  ctx.agents.heartbeat(agentId, runId, { status }).catch((error: unknown) => {
    // The run is over by now.
    if (isOpenStarryError(error) && ["agent_not_found", "run_is_over"].includes(error.code)) return;
    ctx.log.warn({ agent_id: agentId, err: error }, "an agent's status could not be passed on");
  });
}
