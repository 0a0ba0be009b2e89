import { definePlugin, messageBus, sleep } from "../../core/index.js";
import { limitsOf } from "../kit/bus/limits.js";
import { createExternalServer } from "./external-server.js";
import { createNatsServer, SERVICE } from "./managed-server.js";
import { createNatsBus } from "./nats-bus.js";
import { optionsSchema } from "./options.js";

/** How long the daemon's start waits for the first attempt to connect. */
const FIRST_ATTEMPT_MS = 2_000;

/** The message bus on NATS with JetStream: on a server that the plugin runs, or one that runs already. */
export default definePlugin({
  name: "bus-nats",
  apiVersion: 1,
  provides: [messageBus],
  options: optionsSchema,
  setup(ctx, options) {
    const managed = options.managed ? createNatsServer(ctx, options) : undefined;
    const { address, connection } = managed ?? createExternalServer(options);
    const { bus, connect, stop } = createNatsBus({
      prefix: options.prefix,
      ...limitsOf(options),
      clock: ctx.clock,
      log: ctx.log,
      address,
      connection,
      whyNotYet: managed?.health,
      onChange(problem) {
        if (problem === undefined) ctx.daemon.recovered();
        // When the daemon stops, its own server stops first.
        else if (ctx.daemon.status().state !== "stopping") ctx.daemon.degraded(problem);
      },
    });
    ctx.provide(messageBus, { ...bus, wanted: managed?.wanted });
    let stopListening = () => {};
    return {
      async start() {
        await managed?.start();
        stopListening = ctx.events.on("agent.state", ({ agent_id, data }) => {
          const isUp = agent_id === `svc:${SERVICE}` && data.to === "running";
          if (managed && isUp) void connect();
        });
        await Promise.race([connect(), sleep(ctx.clock, FIRST_ATTEMPT_MS)]);
      },
      async stop() {
        stopListening();
        await stop();
      },
    };
  },
});
