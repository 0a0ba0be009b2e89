import { z } from "zod";
import {
  definePlugin,
  operation,
  type PluginContext,
  type StateStore,
  stateStore,
} from "../../core/index.js";
import { createNamespaceKeeper } from "./namespaces.js";
import { stateOperations } from "./operations.js";

/**
 * The state store for agents in any language: its operations, its endpoint (`requires: [state]`), and the
 * end of an agent's namespace when the agent is deleted.
 */
export default definePlugin({
  name: "operation-state",
  apiVersion: 1,
  optional: [stateStore],
  provides: [operation],
  options: z.strictObject({}),
  setup(ctx) {
    let keeper: ReturnType<typeof createNamespaceKeeper> | undefined;
    for (const it of stateOperations(ctx, async (namespace) => keeper?.ready(namespace)))
      ctx.provide(operation, it);
    let stopListening = () => {};
    ctx.hooks.onDaemonReady.tap("clear away", () => keeper?.onDaemonReady());
    return {
      start() {
        if (!ctx.has(stateStore)) return;
        const store = ctx.use(stateStore);
        publish(ctx, store);
        keeper = createNamespaceKeeper(ctx, store);
        stopListening = ctx.events.onAny(keeper.onEvent);
      },
      stop: () => stopListening(),
    };
  },
});

function publish(ctx: PluginContext, store: StateStore): void {
  const api = () => ctx.services.endpoints().find(({ name }) => name === "api");
  ctx.services.publishEndpoint({
    name: "state",
    protocol: store.urlFor ? store.name : "http",
    health: () => store.health(),
    wanted: () => store.wanted?.(),
    urlFor(agent) {
      const url = api()?.urlFor(agent);
      return store.urlFor?.(agent) ?? (url && `${url}/state`);
    },
  });
}
