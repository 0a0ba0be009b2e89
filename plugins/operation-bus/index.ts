import { z } from "zod";
import {
  definePlugin,
  type MessageBus,
  messageBus,
  operation,
  type PluginContext,
} from "../../core/index.js";
import { createAnnouncer } from "./announcements.js";
import { busOperations } from "./operations.js";

/**
 * The message bus for agents in any language: its operations, its endpoint (`requires: [bus]`), and what the
 * daemon itself says there.
 */
export default definePlugin({
  name: "operation-bus",
  apiVersion: 1,
  optional: [messageBus],
  provides: [operation],
  options: z.strictObject({}),
  setup(ctx) {
    let announcer: ReturnType<typeof createAnnouncer> | undefined;
    for (const it of busOperations(ctx, () => announcer?.payOwed())) ctx.provide(operation, it);
    let stopListening = () => {};
    ctx.hooks.onDaemonReady.tap("who is there", () => announcer?.tellWhoIsThere());
    return {
      start() {
        if (!ctx.has(messageBus)) return;
        const bus = ctx.use(messageBus);
        publish(ctx, bus);
        announcer = createAnnouncer(ctx, bus);
        stopListening = ctx.events.onAny(announcer.onEvent);
      },
      stop() {
        stopListening();
        announcer?.stop();
      },
    };
  },
});

function publish(ctx: PluginContext, bus: MessageBus): void {
  const api = () => ctx.services.endpoints().find(({ name }) => name === "api");
  ctx.services.publishEndpoint({
    name: "bus",
    protocol: bus.urlFor ? bus.name : "http",
    health: () => bus.health(),
    wanted: () => bus.wanted?.(),
    urlFor(agent) {
      const url = api()?.urlFor(agent);
      return bus.urlFor?.(agent) ?? (url && `${url}/bus`);
    },
  });
}
