import { z } from "zod";
import {
  definePlugin,
  operation,
  type PluginContext,
  type StateStore,
  stateStore,
} from "../../core/index.js";
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
    for (const it of stateOperations(ctx)) ctx.provide(operation, it);
    let stopListening = () => {};
    // Those that were deleted in the last moment of a daemon that died.
    ctx.hooks.onDaemonReady.tap("clear away", () => sweep(ctx));
    return {
      start() {
        if (!ctx.has(stateStore)) return;
        const store = ctx.use(stateStore);
        publish(ctx, store);
        stopListening = ctx.daemon.onEvent(({ type, agent_id }) => {
          if (type === "agent.deleted" && agent_id !== undefined)
            void drop(ctx, store, ownerPrefix + agent_id);
        });
      },
      stop: () => stopListening(),
    };
  },
});

const ownerPrefix = "agent:";

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

/** What an agent kept must not be found by a later one of its id. */
async function drop(ctx: PluginContext, store: StateStore, namespace: string): Promise<void> {
  await store.drop(namespace).catch((err) => {
    ctx.log.warn({ namespace, err }, "a namespace could not be cleared away; it is at the next start");
  });
}

async function sweep(ctx: PluginContext): Promise<void> {
  const store = ctx.has(stateStore) ? ctx.use(stateStore) : undefined;
  if (!store || store.health() !== undefined) return;
  const all = await store.namespaces();
  const left = all.filter(
    (name) => name.startsWith(ownerPrefix) && !ctx.agents.get(name.slice(ownerPrefix.length)),
  );
  for (const name of left) await drop(ctx, store, name);
}
