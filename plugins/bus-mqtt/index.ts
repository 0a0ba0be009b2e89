import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  authenticator,
  definePlugin,
  isLive,
  messageBus,
  operation,
  type PluginContext,
  type ServiceSpec,
  sleep,
} from "../../core/index.js";
import { limitsOf } from "../kit/bus/limits.js";
import { createManagedServer } from "../kit/managed-server.js";
import { socketPath } from "../kit/socket-path.js";
import { accessOperations, createAnswers } from "./daemon/access.js";
import { createDriver } from "./daemon/driver.js";
import { tellRuns } from "./daemon/run-list.js";
import { type Options, optionsSchema } from "./options.js";
import { type Settings, SOCKET_NAME } from "./settings.js";

const BROKER = fileURLToPath(new URL("./broker/broker.js", import.meta.url));
/** It holds little more than what is on its way. */
const HEAP_MIB = 128;
/** A broker that comes up is no trouble before. */
const COMING_UP_MS = 10_000;
/** The daemon's start waits no longer than this for a broker that runs. */
const FIRST_ANSWER_MS = 1_000;

/** The embedded message bus: a broker process of its own, which outlives the daemon, and its driver. */
export default definePlugin({
  name: "bus-mqtt",
  apiVersion: 1,
  optional: [authenticator],
  provides: [messageBus, operation],
  options: optionsSchema,
  setup(ctx, options) {
    const folder = join(ctx.dataDir, "bus");
    const server = createManagedServer(ctx, {
      name: "bus",
      eager: options.eager,
      template: () => templateOf(folder, options, ctx.daemon.status().version),
    });
    const tell = createReport(ctx);
    const notThere = "the message broker (svc:bus) does not answer";
    const { bus, link } = createDriver({
      path: () => socketPath(folder, SOCKET_NAME),
      clock: ctx.clock,
      whyNot: server.health,
      onRequest: createAnswers(ctx),
      onStatus(status, peer) {
        // At the stop of the daemon it is to end.
        if (status) tell(status.problem);
        else if (ctx.daemon.status().state !== "stopping") tell(notThere);
        if (peer) tellRuns(peer, liveRuns(ctx));
      },
    });
    const open = (): Promise<void> => {
      if (!link.isOpen())
        ctx.clock.after(COMING_UP_MS, () => link.isOpen() && !link.peer() && tell(notThere));
      return link.open();
    };
    ctx.provide(messageBus, {
      ...bus,
      wanted() {
        server.wanted();
        open().catch((err: unknown) => {
          ctx.log.error({ err }, "the message broker cannot be connected to");
          tell(err instanceof Error ? err.message : String(err));
        });
      },
    });
    for (const it of accessOperations()) ctx.provide(operation, it);
    ctx.hooks.afterExit.tap("end its connections", ({ run_id }) => link.peer()?.note({ runOver: run_id }));
    return {
      async start() {
        await server.start();
        // One that an earlier daemon ran is there at once, unless it hangs.
        if (ctx.services.get("bus")) await Promise.race([open(), sleep(ctx.clock, FIRST_ANSWER_MS)]);
      },
      stop: () => link.close(),
    };
  },
});

function templateOf(folder: string, options: Options, version: string): ServiceSpec["template"] {
  const settings: Settings = {
    folder,
    ...limitsOf(options),
    port: options.port,
    version,
  };
  return {
    description: "The embedded message broker of bus-mqtt.",
    command: process.execPath,
    args: [`--max-old-space-size=${HEAP_MIB}`, BROKER, JSON.stringify(settings)],
    // A broker that cannot come up, on a full disk or so, is tried again until it can.
    restart: { policy: "always", max_restarts: 1_000_000, backoff: { min: "200ms", max: "10s" } },
  };
}

function liveRuns({ agents }: Pick<PluginContext, "agents">): string[] {
  return agents
    .list()
    .flatMap(({ state, run_id }) => (isLive(state) && run_id !== undefined ? [run_id] : []));
}

/** Transitions only. */
function createReport({ daemon }: Pick<PluginContext, "daemon">): (problem: string | undefined) => void {
  let told: string | undefined;
  return (problem) => {
    if (problem === told) return;
    told = problem;
    if (problem === undefined) daemon.recovered();
    else daemon.degraded(problem);
  };
}
