import { z } from "zod";
import {
  defineOperation,
  type Expected,
  OpenStarryError,
  type Operation,
  type OperationCall,
  type PluginContext,
  type StateChange,
  type StateEntry,
  type StateStore,
  type StateWrite,
  type StreamItem,
  stateStore,
} from "../../core/index.js";
import { waitUntilHealthy } from "../kit/wait-until-healthy.js";
import { entrySchema, ifVersion, key, namespace, prefix, putFields, writesSchema } from "./schemas.js";

const byKey = "/state/{namespace}/{key*}";
const byNamespace = "/state/{namespace}";

const listInput = z.strictObject({
  namespace,
  prefix: prefix.default("").meta({ description: "Only keys that begin so." }),
  limit: z.int().min(1).max(1_000).default(100),
  cursor: z.string().max(1_000).optional().meta({ description: "The next_cursor of the page before." }),
  keys_only: z.boolean().default(false).meta({ description: "Without the values." }),
});

const watchInput = z.strictObject({
  namespace,
  prefix: prefix.default(""),
  after: z.int().min(0).optional().meta({
    description: "All keys that changed after this version first; 0: all. Absent: what changes from now on.",
  }),
});

type ListInput = z.output<typeof listInput>;

/**
 * `state.get`, `state.put`, `state.delete`, `state.list`, `state.write`, `state.watch`, `state.drop`. `beforeUse` has
 * its turn before each of them, for the namespace that is asked for.
 */
export function stateOperations(
  ctx: PluginContext,
  beforeUse: (namespace: string) => Promise<void>,
): Operation<never>[] {
  const store = async (name: string, signal: AbortSignal): Promise<StateStore> => {
    const usable = await usableStore(ctx, signal);
    await beforeUse(name);
    return usable;
  };
  /** One write, and the entry that it made or deleted. */
  const writeOne = async (name: string, write: StateWrite, signal: AbortSignal) => {
    const [entry] = await (await store(name, signal)).write(name, [write]);
    return entry;
  };

  return [
    defineOperation({
      name: "state.get",
      summary: "One value of the state store, with its version.",
      scope: "state:read",
      input: z.strictObject({ namespace, key }),
      output: entrySchema,
      http: { method: "GET", path: byKey, etag: etagOf },
      async handler(input, { signal }) {
        const entry = await (await store(input.namespace, signal)).get(input.namespace, input.key);
        return entry ?? notThere(input);
      },
    }),
    defineOperation({
      name: "state.put",
      summary: "Keeps a value; with if_version (or If-Match, If-None-Match: *) only at that version.",
      scope: "state:write",
      input: z.strictObject({ namespace, key, ...putFields }),
      output: entrySchema,
      http: { method: "PUT", path: byKey, etag: etagOf },
      async handler({ namespace: name, if_version, ...put }, call) {
        const write = writeOf({ op: "put", ...put, if_version: expected(if_version, call) });
        const entry = await writeOne(name, write, call.signal);
        return withoutValue(entry);
      },
    }),
    defineOperation({
      name: "state.delete",
      summary: "Removes a value; with if_version (or If-Match) only at that version.",
      scope: "state:write",
      input: z.strictObject({ namespace, key, if_version: ifVersion }),
      output: z.object({ key: z.string(), deleted: z.boolean() }),
      http: { method: "DELETE", path: byKey },
      async handler({ namespace: name, ...input }, call) {
        const if_version = expected(input.if_version, call);
        const entry = await writeOne(
          name,
          writeOf({ op: "delete", key: input.key, if_version }),
          call.signal,
        );
        return { key: input.key, deleted: entry !== undefined };
      },
    }),
    defineOperation({
      name: "state.write",
      summary: "Several puts and deletions, all of them or none.",
      scope: "state:write",
      input: z.strictObject({ namespace, writes: writesSchema }),
      output: z.object({ items: z.array(z.object({ key: z.string(), version: z.int().optional() })) }),
      http: { method: "POST", path: byNamespace },
      async handler(input, { signal }) {
        const entries = await (await store(input.namespace, signal)).write(
          input.namespace,
          input.writes.map(writeOf),
        );
        const items = input.writes.map(({ op, key: name }, index) => {
          const version = op === "put" ? entries[index]?.version : undefined;
          return { key: name, ...(version === undefined ? {} : { version }) };
        });
        return { items };
      },
    }),
    defineOperation({
      name: "state.list",
      summary: "The values of a namespace in the order of their keys.",
      scope: "state:read",
      input: listInput,
      output: z.object({ items: z.array(entrySchema), next_cursor: z.string().optional() }),
      http: { method: "GET", path: byNamespace },
      handler: async (input, { signal }) => list(await store(input.namespace, signal), input),
    }),
    defineOperation({
      name: "state.watch",
      summary: "Changes of a namespace as server-sent events; resumes after the Last-Event-ID.",
      scope: "state:read",
      input: watchInput,
      output: entrySchema,
      http: { method: "GET", path: "/state-watch/{namespace}", contentType: "text/event-stream" },
      handler: async ({ namespace: name, ...input }, call) =>
        watch(await store(name, call.signal), name, input, call),
    }),
    defineOperation({
      name: "state.drop",
      summary: "Forgets a namespace with all that is in it.",
      scope: "operator",
      input: z.strictObject({ namespace }),
      output: z.object({ namespace: z.string(), dropped: z.literal(true) }),
      http: { method: "DELETE", path: byNamespace },
      async handler(input, { signal }) {
        await (await store(input.namespace, signal)).drop(input.namespace);
        return { namespace: input.namespace, dropped: true as const };
      },
    }),
  ];
}

/** Rejects with `slot_empty`, or with `state_unavailable` when it does not come up. */
async function usableStore(ctx: PluginContext, signal: AbortSignal): Promise<StateStore> {
  if (!ctx.has(stateStore)) {
    throw new OpenStarryError("slot_empty", {
      detail: "this daemon has no state store",
      hint: "add one to the config's plugins, such as state-sqlite",
    });
  }
  return waitUntilHealthy(ctx.use(stateStore), {
    clock: ctx.clock,
    signal,
    code: "state_unavailable",
    what: "the state store",
  });
}

interface WriteInput {
  op: "put" | "delete";
  key: string;
  value?: unknown;
  ttl?: number | undefined;
  if_version?: Expected | undefined;
}

function writeOf({ op, key: name, value, ttl, if_version }: WriteInput): StateWrite {
  const expect = if_version === undefined ? {} : { expect: if_version };
  if (op === "delete") return { op, key: name, ...expect };
  return { op, key: name, value, ...(ttl === undefined ? {} : { ttlMs: ttl }), ...expect };
}

/** What the input expects, or else the caller's headers. */
function expected(
  given: Expected | undefined,
  { ifMatch, ifNoneMatch }: OperationCall,
): Expected | undefined {
  const header = ifNoneMatch === "*" ? "absent" : ifMatch === undefined ? undefined : versionOf(ifMatch);
  if (ifNoneMatch !== undefined && ifNoneMatch !== "*") throw badHeader("If-None-Match", "*");
  if (header === undefined || given === undefined || header === given) return given ?? header;
  throw new OpenStarryError("input_invalid", {
    detail: `if_version is ${given}, and the header says ${header}`,
    hint: "say it once",
  });
}

function versionOf(etag: string): number {
  const match = /^"?([1-9]\d{0,14})"?$/.exec(etag);
  if (!match) throw badHeader("If-Match", 'the ETag of an answer, as in "12"');
  return Number(match[1]);
}

function badHeader(name: string, wanted: string): OpenStarryError {
  return new OpenStarryError("input_invalid", {
    detail: `the header ${name} is not one that this operation understands`,
    hint: `expected ${wanted}`,
  });
}

function etagOf({ version }: { version: number }): string {
  return `"${version}"`;
}

function withoutValue(entry: StateEntry | undefined) {
  if (!entry)
    throw new OpenStarryError("internal", { detail: "the store kept a value and did not answer it" });
  const { value: _known, ...rest } = entry;
  return rest;
}

function notThere({ namespace: name, key: wanted }: { namespace: string; key: string }): never {
  throw new OpenStarryError("state_not_found", {
    detail: `there is no "${wanted}" in ${name}`,
    hint: `GET /state/${name} lists the keys that there are`,
  });
}

async function list(
  store: StateStore,
  { namespace: name, prefix: begin, limit, cursor, keys_only }: ListInput,
) {
  const after = cursor === undefined ? undefined : readCursor(cursor);
  const query = { prefix: begin, limit, ...(after === undefined ? {} : { after }) };
  const { entries, more } = await store.list(name, query);
  const last = entries.at(-1)?.key;
  return {
    items: keys_only ? entries.map(withoutValue) : entries,
    ...(more && last !== undefined ? { next_cursor: writeCursor(last) } : {}),
  };
}

/** After the key that was answered last. */
function writeCursor(last: string): string {
  return Buffer.from(last).toString("base64url");
}

function readCursor(cursor: string): string {
  const last = Buffer.from(cursor, "base64url").toString();
  if (last !== "" && writeCursor(last) === cursor) return last;
  throw new OpenStarryError("input_invalid", {
    detail: "cursor is not one that was handed out",
    hint: "take it from next_cursor of the page before, or leave it out to begin again",
  });
}

function watch(
  store: StateStore,
  name: string,
  { prefix: begin, after }: { prefix: string; after?: number | undefined },
  { signal, lastEventId }: OperationCall,
): AsyncIterable<StreamItem> {
  const from = lastEventId === undefined ? after : resumeAt(lastEventId);
  const query = { prefix: begin, signal, ...(from === undefined ? {} : { after: from }) };
  return (async function* () {
    for await (const change of store.watch(name, query)) yield itemOf(change);
  })();
}

function resumeAt(lastEventId: string): number {
  if (/^\d{1,15}$/.test(lastEventId)) return Number(lastEventId);
  throw badHeader("Last-Event-ID", "the id of an event of this stream");
}

function itemOf(change: StateChange): StreamItem {
  if (change.type === "put") {
    return { id: String(change.entry.version), event: "put", data: change.entry };
  }
  const { type, ...data } = change;
  return { id: String(change.version), event: type, data };
}
