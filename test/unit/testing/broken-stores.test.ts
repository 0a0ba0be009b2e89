import {
  type StateChange,
  type StateEntry,
  type StateStore,
  type StateWrite,
  systemClock,
} from "../../../core/index.js";
import { createMemoryStore } from "../../../plugins/state-memory/memory-store.js";
import { type StateStoreSubject, testStateStore } from "../../contract/index.js";
import { type DriverFault, tryFaults } from "../../helpers/suite-run.js";

/** A mistake that a driver may have: what it does otherwise than the good one that it is put around. */
interface Fault extends DriverFault {
  breakIt: (good: StateStore) => Partial<StateStore>;
  durable?: boolean;
}

type Watch = StateStore["watch"];
/** A watch that says of each change whether it is told, and as what. */
const retell = (
  good: StateStore,
  tell: (change: StateChange, index: number) => StateChange | undefined,
): Watch =>
  async function* (namespace, query) {
    let index = 0;
    for await (const change of good.watch(namespace, query)) {
      const told = tell(change, index++);
      if (told) yield told;
    }
  };
/** A write that does something to each operation first. */
const rewriting =
  (good: StateStore, change: (write: StateWrite) => object): StateStore["write"] =>
  (namespace, writes) =>
    good.write(
      namespace,
      writes.map((write) => ({ ...write, ...change(write) }) as StateWrite),
    );
/** Everything with another key. */
const renaming = (good: StateStore, rename: (key: string) => string): Partial<StateStore> => ({
  get: (namespace, key) => good.get(namespace, rename(key)),
  write: rewriting(good, ({ key }) => ({ key: rename(key) })),
});
/** Everything in another namespace. */
const moving = (good: StateStore, move: (namespace: string) => string): Partial<StateStore> => ({
  get: (namespace, key) => good.get(move(namespace), key),
  write: (namespace, writes) => good.write(move(namespace), writes),
  list: (namespace, query) => good.list(move(namespace), query),
  watch: (namespace, query) => good.watch(move(namespace), query),
  drop: (namespace) => good.drop(move(namespace)),
});

const FAULTS: readonly Fault[] = [
  { name: "does nothing wrong", breakIt: () => ({}), noticed: [] },
  {
    name: "loses the end of an entry",
    breakIt: (good) => ({ write: rewriting(good, () => ({ ttlMs: undefined })) }),
    noticed: ["an entry whose time is over is not there, and told as deleted"],
  },
  {
    name: "keeps the end of the value before",
    breakIt(good) {
      const ends = new Map<string, number>();
      return {
        write: rewriting(good, (write) => {
          const ttlMs = (write.op === "put" ? write.ttlMs : undefined) ?? ends.get(write.key);
          if (ttlMs !== undefined) ends.set(write.key, ttlMs);
          return ttlMs === undefined ? {} : { ttlMs };
        }),
      };
    },
    noticed: ["a later put without an end takes the end away"],
  },
  {
    name: "does not tell that the time of an entry is over",
    breakIt(good) {
      const brief = new Set<string>();
      return {
        write: rewriting(good, (write) => {
          if (write.op === "put" && write.ttlMs !== undefined) brief.add(write.key);
          return {};
        }),
        watch: retell(good, (change) =>
          change.type === "delete" && brief.has(change.key) ? undefined : change,
        ),
      };
    },
    noticed: ["an entry whose time is over is not there, and told as deleted"],
  },
  {
    name: "answers a deletion with another version",
    breakIt: (good) => ({
      async write(namespace, writes) {
        const answers = await good.write(namespace, writes);
        return answers.map((it, index) =>
          it && writes[index]?.op === "delete" ? { ...it, version: it.version + 1 } : it,
        );
      },
    }),
    noticed: ["a deletion answers what was there, and counts as a change"],
  },
  {
    name: "answers a put with the version before",
    breakIt: (good) => ({
      async write(namespace, writes) {
        const answers = await good.write(namespace, writes);
        return answers.map((it, index) =>
          it && writes[index]?.op === "put" ? { ...it, version: it.version - 1 } : it,
        );
      },
    }),
    noticed: ["an entry says its key, its version, and when it was made"],
  },
  {
    name: "counts the deletion of what is not there",
    breakIt: (good) => ({
      async write(namespace, writes) {
        const answers = await good.write(namespace, writes);
        if (writes.some(({ op }, index) => op === "delete" && !answers[index])) {
          await good.write(namespace, [
            { op: "put", key: "\uffff", value: 0 },
            { op: "delete", key: "\uffff" },
          ]);
        }
        return answers;
      },
    }),
    noticed: ["what is not there is undefined, and its deletion changes nothing"],
  },
  {
    name: "does the writes of a batch one by one",
    breakIt: (good) => ({
      async write(namespace, writes) {
        const answers: (StateEntry | undefined)[] = [];
        for (const write of writes) answers.push(...(await good.write(namespace, [write])));
        return answers;
      },
    }),
    noticed: ["writes happen all together or not at all"],
  },
  {
    name: "looks at the expectations of a batch before the batch",
    breakIt: (good) => ({
      async write(namespace, writes) {
        const touched = new Set<string>();
        const changed = writes.map((write) => {
          const isFirst = !touched.has(write.key);
          touched.add(write.key);
          const { expect: _, ...rest } = write;
          return isFirst ? write : rest;
        });
        return good.write(namespace, changed);
      },
    }),
    noticed: ["a write sees what came before it in the same batch"],
  },
  {
    name: "does not look at expectations",
    breakIt: (good) => ({ write: rewriting(good, () => ({ expect: undefined })) }),
    noticed: [
      "a put that expects absence happens once",
      "a write that expects a version happens at that version only",
    ],
  },
  {
    name: "does not say what was found instead",
    breakIt: (good) => ({
      write: (namespace, writes) =>
        good.write(namespace, writes).catch((error: Error & { code?: string }) => {
          throw Object.assign(new Error(error.message), { code: error.code });
        }),
    }),
    noticed: ["a put that expects absence happens once"],
  },
  {
    name: "looks, and writes a moment later",
    breakIt: (good) => ({
      async write(namespace, writes) {
        const found = await Promise.all(writes.map(({ key }) => good.get(namespace, key)));
        const isMet = writes.every(
          ({ expect }, index) =>
            expect === undefined || (expect === "absent" ? undefined : expect) === found[index]?.version,
        );
        if (!isMet) return good.write(namespace, writes);
        await Promise.resolve();
        return good.write(
          namespace,
          writes.map(({ expect: _, ...write }) => write),
        );
      },
    }),
    noticed: [
      "of a hundred who expect the same version, one is answered well",
      "a counter that many raise by compare-and-set loses nothing",
    ],
  },
  {
    name: "hands out what it keeps",
    breakIt(good) {
      const shared = new Map<string, unknown>();
      return {
        async write(namespace, writes) {
          for (const write of writes) if (write.op === "put") shared.set(write.key, write.value);
          return good.write(namespace, writes);
        },
        async get(namespace, key) {
          const found = await good.get(namespace, key);
          return found && { ...found, value: shared.get(key) };
        },
      };
    },
    noticed: ["what is done with a value afterwards does not change what is kept"],
  },
  {
    name: "cuts a large value",
    breakIt: (good) => ({
      write: rewriting(good, (write) =>
        write.op === "put" && typeof write.value === "string" ? { value: write.value.slice(0, 65_536) } : {},
      ),
    }),
    noticed: ["a value of one MiB is kept"],
  },
  {
    name: "takes nothing for no value",
    breakIt: (good) => ({
      async get(namespace, key) {
        const found = await good.get(namespace, key);
        return found?.value === null ? undefined : found;
      },
    }),
    noticed: ["a value comes back as it was put"],
  },
  {
    name: "takes keys for the same that differ in case",
    breakIt: (good) => renaming(good, (key) => key.toLowerCase()),
    noticed: ["keys of every kind are kept apart"],
  },
  {
    name: "takes keys for the same that look the same",
    breakIt: (good) => renaming(good, (key) => key.normalize("NFC")),
    noticed: ["keys of every kind are kept apart"],
  },
  {
    name: "cuts long keys",
    breakIt: (good) => renaming(good, (key) => key.slice(0, 255)),
    noticed: ["keys of every kind are kept apart"],
  },
  {
    name: "lists in the order of JavaScript's strings",
    breakIt: (good) => ({
      async list(namespace, query) {
        const page = await good.list(namespace, query);
        return { ...page, entries: page.entries.sort((a, b) => (a.key < b.key ? -1 : 1)) };
      },
    }),
    noticed: ["lists are in the order of the keys' bytes"],
  },
  {
    name: "lists backwards",
    breakIt: (good) => ({
      async list(namespace, query) {
        const page = await good.list(namespace, query);
        return { ...page, entries: page.entries.reverse() };
      },
    }),
    noticed: [
      "lists are in the order of the keys' bytes",
      "pages meet end to end, whatever happens between them",
    ],
  },
  {
    name: "says that there is no more",
    breakIt: (good) => ({
      list: async (namespace, query) => ({ ...(await good.list(namespace, query)), more: false }),
    }),
    noticed: ["pages meet end to end, whatever happens between them"],
  },
  {
    name: "lists the last of a page again on the next",
    breakIt: (good) => ({
      async list(namespace, { after, ...query }) {
        if (after === undefined) return good.list(namespace, query);
        const all = await good.list(namespace, { ...query, limit: 10_000 });
        const rest = all.entries.filter(
          ({ key }) => Buffer.compare(Buffer.from(key), Buffer.from(after)) >= 0,
        );
        return { entries: rest.slice(0, query.limit), more: all.more || rest.length > query.limit };
      },
    }),
    noticed: ["pages meet end to end, whatever happens between them"],
  },
  {
    name: "takes a prefix for a pattern",
    breakIt: (good) => ({
      async list(namespace, { prefix = "", ...query }) {
        const pattern = prefix
          .replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&")
          .replaceAll("_", ".")
          .replaceAll("%", ".*");
        const page = await good.list(namespace, query);
        return {
          ...page,
          entries: page.entries.filter(({ key }) => new RegExp(`^${pattern}`, "s").test(key)),
        };
      },
    }),
    noticed: ["a prefix means these very characters"],
  },
  {
    name: "gives pages of any size",
    breakIt: (good) => ({
      async list(namespace, { after, ...query }) {
        const entries: StateEntry[] = [];
        for (let last = after; ; ) {
          const page = await good.list(namespace, {
            ...query,
            ...(last === undefined ? {} : { after: last }),
          });
          entries.push(...page.entries);
          last = entries.at(-1)?.key;
          if (!page.more || entries.length >= query.limit) {
            return {
              entries: entries.slice(0, query.limit),
              more: page.more || entries.length > query.limit,
            };
          }
        }
      },
    }),
    noticed: ["a page of large values stays small, and goes on"],
  },
  {
    name: "misses a change",
    breakIt: (good) => ({ watch: retell(good, (change, index) => (index === 1 ? undefined : change)) }),
    noticed: ["a watch tells what comes, in order", "one that reads slowly misses no key's last value"],
  },
  {
    name: "subscribes a moment late",
    breakIt: (good) => ({
      async *watch(namespace, query) {
        await new Promise(setImmediate);
        yield* good.watch(namespace, query);
      },
    }),
    noticed: ["a watch tells what comes, in order"],
  },
  {
    name: "tells only what comes",
    breakIt: (good) => ({ watch: (namespace, { after: _, ...query }) => good.watch(namespace, query) }),
    noticed: [
      "a watch after a version tells the last change of each key since, then what comes",
      "a watch from 0 tells everything that is there",
    ],
  },
  {
    name: "tells everything from the beginning",
    breakIt: (good) => ({ watch: (namespace, query) => good.watch(namespace, { ...query, after: 0 }) }),
    noticed: ["a watch tells what comes, in order"],
  },
  {
    name: "tells of all prefixes",
    breakIt: (good) => ({ watch: (namespace, { prefix: _, ...query }) => good.watch(namespace, query) }),
    noticed: ["a prefix leaves out the others"],
  },
  {
    name: "does not tell of deletions",
    breakIt: (good) => ({ watch: retell(good, (change) => (change.type === "delete" ? undefined : change)) }),
    noticed: [
      "a watch tells what comes, in order",
      "a watch after a version tells the last change of each key since, then what comes",
    ],
  },
  {
    name: "tells a slow one what was the value when it first changed",
    breakIt(good) {
      const first = new Map<string, unknown>();
      return {
        write: rewriting(good, (write) => {
          if (write.op === "put" && !first.has(write.key)) first.set(write.key, write.value);
          return {};
        }),
        watch: retell(good, (change) =>
          change.type === "put"
            ? { ...change, entry: { ...change.entry, value: first.get(change.entry.key) } }
            : change,
        ),
      };
    },
    noticed: ["one that reads slowly misses no key's last value"],
  },
  {
    name: "does not end a watch",
    breakIt: (good) => ({
      watch: (namespace, query) => good.watch(namespace, { ...query, signal: new AbortController().signal }),
    }),
    noticed: ["who is told of changes nobody waits for ends when asked to"],
  },
  {
    name: "has one namespace for all",
    breakIt: (good) => moving(good, () => "one"),
    noticed: ["namespaces know nothing of each other"],
  },
  {
    name: "takes namespaces for the same that begin the same",
    breakIt: (good) => moving(good, (namespace) => namespace.slice(0, 6)),
    noticed: ["namespaces know nothing of each other"],
  },
  {
    name: "drops nothing",
    breakIt: () => ({ drop: async () => {} }),
    noticed: ["a namespace that was dropped is empty, its watches end, and the others stay"],
  },
  {
    name: "drops namespaces that begin the same too",
    breakIt: (good) => ({
      async drop(namespace) {
        for (const name of await good.namespaces()) if (name.startsWith(namespace)) await good.drop(name);
      },
    }),
    noticed: ["a namespace that was dropped is empty, its watches end, and the others stay"],
  },
  {
    name: "empties a namespace, and leaves its watches open",
    breakIt: (good) => ({
      async drop(namespace) {
        const { entries } = await good.list(namespace, { limit: 1_000 });
        await good.write(
          namespace,
          entries.map(({ key }) => ({ op: "delete", key })),
        );
      },
    }),
    noticed: ["a namespace that was dropped is empty, its watches end, and the others stay"],
  },
  {
    name: "is not well while it is started",
    breakIt: () => ({ health: () => "it is not" }),
    noticed: ["it is healthy while it is started, and may be stopped twice"],
  },
  {
    name: "says that it is durable, and is not",
    breakIt: () => ({}),
    durable: true,
    noticed: ["a later daemon finds values, versions and ends as they were"],
  },
];

function subjectOf({ breakIt }: Fault): StateStoreSubject {
  const { store, start, stop } = createMemoryStore(systemClock);
  return {
    store: { ...store, ...breakIt(store) },
    start,
    stop,
    reopen: () => createMemoryStore(systemClock),
  };
}

tryFaults("state store", FAULTS, (fault, test) =>
  testStateStore({
    test,
    capabilities: { durable: fault.durable ?? false },
    factory: () => subjectOf(fault),
  }),
);
