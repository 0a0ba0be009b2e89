import { definePlugin, messageBus, sleep } from "../../core/index.js";
import { limitsOf } from "../kit/bus/limits.js";
import { createExternalServer } from "./external-server.js";
import { createNatsServer, SERVICE } from "./managed-server.js";
import { createNatsBus } from "./nats-bus.js";
import { optionsSchema } from "./options.js";

/** So long the daemon's start waits for a server that is likely to be there. */
const FIRST_ATTEMPT_MS = 2_000;

/** A message bus over NATS with JetStream: a server that it runs itself, or one that is there. */
export default definePlugin({
  name: "bus-nats",
  apiVersion: 1,
  provides: [messageBus],
  options: optionsSchema,
  setup(ctx, options) {
    const managed = options.managed ? createNatsServer(ctx, options) : undefined;
    const { where, connection } = managed ?? createExternalServer(options);
    const { bus, connect, stop } = createNatsBus({
      prefix: options.prefix,
      ...limitsOf(options),
      clock: ctx.clock,
      log: ctx.log,
      where,
      connection,
      ...(managed ? { notYet: () => managed.health() } : {}),
      onChange(problem) {
        if (problem === undefined) ctx.daemon.recovered();
        // Its server ends before it does.
        else if (ctx.daemon.status().state !== "stopping") ctx.daemon.degraded(problem);
      },
    });
    ctx.provide(messageBus, { ...bus, ...(managed ? { wanted: () => managed.wanted() } : {}) });
    let stopListening = () => {};
    return {
      async start() {
        await managed?.start();
        stopListening = ctx.daemon.onEvent(({ type, agent_id, data }) => {
          const isUp = agent_id === `svc:${SERVICE}` && type === "agent.state" && data["to"] === "running";
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
