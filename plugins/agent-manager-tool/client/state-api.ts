import { isOpenStarryError } from "../../../core/contracts/errors.js";
import { followEvents } from "./event-stream.js";
import type { Transport } from "./transport.js";
import type * as Wire from "./wire.js";

/** What one listing asks for at a time. */
const PAGE = 200;

/**
 * Everything under `/state`: small values that agents share. A namespace is `shared`, `agent:ID`, or one of the
 * operator's own. Writes with an expectation reject with `state_conflict`, whose `data.version` is what was met.
 */
export function stateApi(transport: Transport) {
  return {
    /** `undefined` when there is none. */
    async get(namespace: string, key: string, control: Wire.CallControl = {}) {
      try {
        return await transport.json<Wire.StateEntry>({
          method: "GET",
          path: pathOf(namespace, key),
          ...control,
        });
      } catch (error) {
        if (isOpenStarryError(error) && error.code === "state_not_found") return undefined;
        throw error;
      }
    },
    put: (namespace: string, key: string, value: unknown, options: Wire.StatePutOptions = {}) =>
      transport.json<Omit<Wire.StateEntry, "value">>({
        method: "PUT",
        path: pathOf(namespace, key),
        body: {
          value,
          ...(options.ttlMs === undefined ? {} : { ttl: `${options.ttlMs}ms` }),
          ...(options.ifVersion === undefined ? {} : { if_version: options.ifVersion }),
        },
        // With an expectation the second of two would be refused because of the first.
        repeatable: options.ifVersion === undefined,
        ...signalOf(options),
      }),
    /** Whether there was one. */
    async delete(namespace: string, key: string, options: Wire.StateDeleteOptions = {}): Promise<boolean> {
      const { deleted } = await transport.json<{ deleted: boolean }>({
        method: "DELETE",
        path: pathOf(namespace, key),
        query: { if_version: options.ifVersion },
        ...signalOf(options),
      });
      return deleted;
    },
    /** All of them, in order, or none. Answers the version of each put. */
    async write(namespace: string, writes: readonly Wire.StateWriteInput[], control: Wire.CallControl = {}) {
      const { items } = await transport.json<{ items: { key: string; version?: number }[] }>({
        method: "POST",
        path: pathOf(namespace),
        body: { writes },
        ...control,
      });
      return items;
    },
    list: (namespace: string, query: Wire.StateListQuery = {}) => list(transport, namespace, query),
    watch: (namespace: string, query: Wire.StateWatchQuery = {}) => watch(transport, namespace, query),
  };
}

/** Page by page, in the order of the keys' bytes; what changes meanwhile behind the reader is not seen. */
async function* list(
  transport: Transport,
  namespace: string,
  { prefix, keysOnly, ...control }: Wire.StateListQuery,
): AsyncGenerator<Wire.StateEntry> {
  for (let cursor: string | undefined; ; ) {
    const page: { items: Wire.StateEntry[]; next_cursor?: string } = await transport.json({
      method: "GET",
      path: pathOf(namespace),
      query: { prefix, keys_only: keysOnly, limit: PAGE, cursor },
      ...control,
    });
    yield* page.items;
    if (page.next_cursor === undefined) return;
    cursor = page.next_cursor;
  }
}

/** Changes, across lost connections: each new one goes on after the last change that was told. */
async function* watch(
  transport: Transport,
  namespace: string,
  { prefix, after, ...options }: Wire.StateWatchQuery,
): AsyncGenerator<Wire.StateChange> {
  const path = `/state-watch/${encodeURIComponent(namespace)}`;
  for await (const { event, data } of followEvents(transport, {
    path,
    query: { prefix, after },
    ...options,
  })) {
    if (event === "put") yield { type: event, entry: data as Wire.StateEntry };
    else yield { type: event, ...(data as object) } as Wire.StateChange;
  }
}

/** Slashes are part of a key. */
function pathOf(namespace: string, key?: string): string {
  const path = `/state/${encodeURIComponent(namespace)}`;
  return key === undefined ? path : `${path}/${encodeURIComponent(key)}`;
}

function signalOf({ signal }: Wire.CallControl): Wire.CallControl {
  return signal ? { signal } : {};
}
