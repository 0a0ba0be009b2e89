import { z } from "zod";
import { definePlugin, probe } from "../../core/index.js";
import { createHeartbeatProbe } from "./heartbeat-probe.js";

/** The probe `heartbeat`: the agent itself says that it is there, by `POST /agents/{id}/heartbeat`. */
export default definePlugin({
  name: "probe-heartbeat",
  apiVersion: 1,
  provides: [probe],
  options: z.strictObject({}),
  setup(ctx) {
    const heartbeat = createHeartbeatProbe(ctx.clock);
    ctx.provide(probe, heartbeat.probe);
    let stopListening = () => {};
    return {
      start() {
        stopListening = ctx.events.on("agent.heartbeat", heartbeat.hear);
      },
      stop() {
        stopListening();
      },
    };
  },
});
