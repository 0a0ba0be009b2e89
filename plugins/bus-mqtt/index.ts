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
import { authorizationOperations, createClientAuthorization } from "./daemon/client-authorization.js";
import { createRemoteBus } from "./daemon/remote-bus.js";
import { type BrokerSettings, SOCKET_NAME } from "./ipc/broker-settings.js";
import { sendLiveRuns } from "./ipc/live-runs.js";
import { type Options, optionsSchema } from "./options.js";

const BROKER = fileURLToPath(new URL("./broker/broker.js", import.meta.url));
/** Enough: the broker holds little more than messages on their way. */
const HEAP_MIB = 128;
/** How long a broker may take to start before that is reported as a problem. */
const STARTUP_MS = 10_000;
/** How long the daemon's start waits for a broker that already runs. */
const FIRST_ANSWER_MS = 1_000;
const NOT_ANSWERING = "the message broker (svc:bus) does not answer";

/** The embedded message bus: a broker process that outlives the daemon, and the daemon's connection to it. */
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
    const report = createProblemReporter(ctx);
    const { bus, link } = createRemoteBus({
      path: () => socketPath(folder, SOCKET_NAME),
      clock: ctx.clock,
      whyDown: server.health,
      onRequest: createClientAuthorization(ctx),
      onStatus(status, peer) {
        if (status) report(status.problem);
        // While the daemon stops, the broker is expected to end.
        else if (ctx.daemon.status().state !== "stopping") report(NOT_ANSWERING);
        if (peer) sendLiveRuns(peer, liveRuns(ctx));
      },
    });
    const open = (): Promise<void> => {
      if (!link.isOpen())
        ctx.clock.after(STARTUP_MS, () => link.isOpen() && !link.peer() && report(NOT_ANSWERING));
      return link.open();
    };
    ctx.provide(messageBus, {
      ...bus,
      wanted() {
        server.wanted();
        open().catch((err: unknown) => {
          ctx.log.error({ err }, "cannot connect to the message broker");
          report(err instanceof Error ? err.message : String(err));
        });
      },
    });
    for (const it of authorizationOperations()) ctx.provide(operation, it);
    ctx.hooks.afterExit.tap("close connections of the run", ({ run_id }) =>
      link.peer()?.notify({ runOver: run_id }),
    );
    return {
      async start() {
        await server.start();
        // A broker that an earlier daemon started answers at once, unless it hangs.
        if (ctx.services.get("bus")) await Promise.race([open(), sleep(ctx.clock, FIRST_ANSWER_MS)]);
      },
      stop: () => link.close(),
    };
  },
});

function templateOf(folder: string, options: Options, version: string): ServiceSpec["template"] {
  const settings: BrokerSettings = {
    folder,
    ...limitsOf(options),
    port: options.port,
    version,
  };
  return {
    description: "The embedded message broker of bus-mqtt.",
    command: process.execPath,
    args: [`--max-old-space-size=${HEAP_MIB}`, BROKER, JSON.stringify(settings)],
    // Never given up: what keeps it from starting, such as a full disk, may pass.
    restart: { policy: "always", max_restarts: 1_000_000, backoff: { min: "200ms", max: "10s" } },
  };
}

function liveRuns({ agents }: Pick<PluginContext, "agents">): string[] {
  return agents
    .list()
    .flatMap(({ state, run_id }) => (isLive(state) && run_id !== undefined ? [run_id] : []));
}

/** Returns a function that degrades the plugin or reports its recovery, and ignores what it has reported already. */
function createProblemReporter({
  daemon,
}: Pick<PluginContext, "daemon">): (problem: string | undefined) => void {
  let reported: string | undefined;
  return (problem) => {
    if (problem === reported) return;
    reported = problem;
    if (problem === undefined) daemon.recovered();
    else daemon.degraded(problem);
  };
}
