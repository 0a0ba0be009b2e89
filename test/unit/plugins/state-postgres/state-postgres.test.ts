import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type StateChange, type StateEntry, type StateWrite, systemClock } from "../../../../core/index.js";
import statePostgres from "../../../../plugins/state-postgres/index.js";
import { optionsSchema } from "../../../../plugins/state-postgres/options.js";
import {
  createPostgresStore,
  type PostgresStoreOptions,
} from "../../../../plugins/state-postgres/postgres-store.js";
import { parseUrl, type Server } from "../../../../plugins/state-postgres/server-url.js";
import { testStateStore } from "../../../contract/index.js";
import { createPluginHost } from "../../../helpers/plugin-host.js";
import { noPostgres, startPostgres, type TestPostgres } from "../../../helpers/postgres.js";
import { waitFor } from "../../../helpers/wait-for.js";

let server: TestPostgres;
let schemas = 0;
const newSchema = () => `s${++schemas}`;

function serverOf(url: string): Server {
  const parsed = parseUrl(url);
  if (typeof parsed === "string") throw new Error(parsed);
  return parsed;
}

function subject(schema = newSchema(), options: Partial<PostgresStoreOptions> = {}) {
  const problems: (string | undefined)[] = [];
  const made = createPostgresStore({
    ...serverOf(server.url),
    schema,
    clock: systemClock,
    maxDeletions: 1_000,
    patienceMs: 0,
    onProblem: (problem) => problems.push(problem),
    ...options,
  });
  return { ...made, schema, problems, reopen: () => subject(schema, options) };
}

type Subject = ReturnType<typeof subject>;
const subjects: Subject[] = [];
afterEach(async () => {
  for (const it of subjects.splice(0)) await it.stop();
});

async function started(schema?: string, options?: Partial<PostgresStoreOptions>): Promise<Subject> {
  const it = subject(schema, options);
  subjects.push(it);
  await it.start();
  return it;
}

const NS = "shared";
const put = (key: string, value: unknown = 1, ttlMs?: number): StateWrite => ({
  op: "put",
  key,
  value,
  ...(ttlMs === undefined ? {} : { ttlMs }),
});
const del = (key: string): StateWrite => ({ op: "delete", key });

interface Watching {
  seen: StateChange[];
  end(): void;
  done: Promise<void>;
}

/** Reads all changes; `done` resolves when the watch ends, and rejects when it fails. */
function watching({ store }: Subject, after?: number): Watching {
  const ended = new AbortController();
  const seen: StateChange[] = [];
  const query = { signal: ended.signal, ...(after === undefined ? {} : { after }) };
  const read = async () => {
    for await (const change of store.watch(NS, query)) seen.push(change);
  };
  const done = read();
  done.catch(() => {});
  return { seen, end: () => ended.abort(), done };
}

const versionOf = (change: StateChange) => (change.type === "put" ? change.entry.version : change.version);
const told = ({ seen }: Watching) =>
  seen.map((it) => (it.type === "gap" ? "gap" : `${it.type} ${it.type === "put" ? it.entry.key : it.key}`));

async function firstChanges(it: Subject, after: number, count: number): Promise<StateChange[]> {
  const watch = watching(it, after);
  await waitFor(() => watch.seen.length >= count, { what: `${count} changes` });
  watch.end();
  await watch.done;
  return watch.seen;
}

describe.skipIf(noPostgres !== undefined)("with a server", () => {
  beforeAll(async () => {
    server = await startPostgres();
  }, 60_000);
  afterAll(() => server?.stop());

  testStateStore({ test, factory: () => subject(), capabilities: { durable: true } });

  test("keys of any character, and values to the letter", async () => {
    const { store } = await started();
    const keys = ["\0", "a\0b", "\u0001", "\n", "'", '"', "\\", "\\000", "{}", ",", "NULL", "\u{10ffff}"];
    await store.write(
      NS,
      keys.map((key) => put(key, { key })),
    );
    const { entries } = await store.list(NS, { limit: 100 });
    const sorted = [...keys].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    expect(entries.map(({ key, value }) => [key, value])).toEqual(sorted.map((key) => [key, { key }]));
    const text = '{"b":1,"a":{"\\u0000":"\\ud800"},"10":1e+21,"2":0.1,"__proto__":[]}';
    await store.write(NS, [put("text", JSON.parse(text))]);
    const found = await store.get(NS, "text");
    expect(JSON.stringify(found?.value)).toBe(JSON.stringify(JSON.parse(text)));
    await store.write("a\0name", [put("k")]);
    expect((await store.namespaces()).sort()).toEqual(["a\0name", NS]);
  });

  test("two daemons that start at once make the tables once, and share what is in them", async () => {
    const schema = newSchema();
    const all = await Promise.all(Array.from({ length: 6 }, () => started(schema)));
    expect(all.map(({ store }) => store.health())).toEqual(all.map(() => undefined));
    await all[0]?.store.write(NS, [put("k", "v")]);
    expect((await all[5]?.store.get(NS, "k"))?.value).toBe("v");
  });

  test("a watch hears of what another daemon does, in the order of versions, and misses nothing", async () => {
    const schema = newSchema();
    const [here, there] = [await started(schema), await started(schema)];
    const watch = watching(here, 0);
    const count = 300;
    const write = (it: Subject, name: string) =>
      Promise.all(Array.from({ length: count }, (_, index) => it.store.write(NS, [put(`${name}/${index}`)])));
    const answers = (await Promise.all([write(here, "here"), write(there, "there")])).flat(2);
    const versions = answers.map((entry) => (entry as StateEntry).version);
    expect(new Set(versions).size).toBe(2 * count);
    await waitFor(() => watch.seen.length >= 2 * count, { what: "all changes" });
    const seen = watch.seen.map(versionOf);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(new Set(seen)).toEqual(new Set(versions));
    await there.store.drop(NS);
    await watch.done;
  });

  test("who writes slowly is not overtaken: no version is seen before an earlier one is committed", async () => {
    const it = await started();
    await it.store.write(NS, [put("first")]);
    const watch = watching(it);
    // A daemon that has its version and is about to commit; `pg_sleep` holds its transaction open.
    const [entries, spaces] = [`${it.schema}.state_entries`, `${it.schema}.state_namespaces`];
    const slow = server.sql(
      `BEGIN; UPDATE ${spaces} SET version = version + 1;
       INSERT INTO ${entries} SELECT id, 'slow', version, 1, NULL, '1' FROM ${spaces}; SELECT pg_sleep(1); COMMIT`,
    );
    await waitFor(
      async () => {
        const rows = await server.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
        return rows.length === 1;
      },
      { what: "the slow writer to hold its lock" },
    );
    const [fast] = await it.store.write(NS, [put("fast")]);
    await slow;
    expect(fast?.version).toBe(3);
    await waitFor(() => watch.seen.length === 2, { what: "both" });
    expect(told(watch)).toEqual(["put slow", "put fast"]);
    watch.end();
  });

  test("the end of an entry is told once, also when two daemons look for it", async () => {
    const schema = newSchema();
    const [here, there] = [await started(schema), await started(schema)];
    const watches = [watching(here, 0), watching(there, 0)];
    const keys = Array.from({ length: 50 }, (_, index) => `brief/${index}`);
    await here.store.write(
      NS,
      keys.map((key) => put(key, 1, 200)),
    );
    const deletions = (watch: Watching) => watch.seen.filter(({ type }) => type === "delete");
    for (const watch of watches) {
      await waitFor(() => deletions(watch).length >= keys.length, { what: "the ends", timeoutMs: 10_000 });
    }
    // Another round of both.
    const [mark] = await there.store.write(NS, [put("mark", 1, 1)]);
    await waitFor(() => watches.every((watch) => told(watch).includes("delete mark")), { what: "the mark" });
    for (const watch of watches) {
      expect(deletions(watch)).toHaveLength(keys.length + 1);
      expect(watch.seen.filter((it) => versionOf(it) < (mark?.version ?? 0)).length).toBeGreaterThanOrEqual(
        keys.length,
      );
      watch.end();
    }
  });

  test("one who reads slowly is not told what was overwritten before its turn", async () => {
    const it = await started();
    await it.store.write(NS, [put("a", 1), put("b", 1), put("c", 1)]);
    const ended = new AbortController();
    const changes = it.store.watch(NS, { after: 0, signal: ended.signal })[Symbol.asyncIterator]();
    const first = await changes.next();
    await it.store.write(NS, [put("b", 2)]);
    // The slowness itself: what was read before it is old by then.
    await new Promise((resolve) => setTimeout(resolve, 150));
    const rest = [await changes.next(), await changes.next()];
    expect([first, ...rest].map(({ value }) => [value.entry.key, value.entry.value])).toEqual([
      ["a", 1],
      ["c", 1],
      ["b", 2],
    ]);
    ended.abort();
  });

  test("deletions beyond the last so many are forgotten, and who resumes before them gets a gap", async () => {
    const it = await started(undefined, { maxDeletions: 10 });
    const keys = Array.from({ length: 30 }, (_, index) => `k/${String(index).padStart(2, "0")}`);
    await it.store.write(
      NS,
      keys.map((key) => put(key)),
    );
    await it.store.write(NS, keys.map(del));
    const [kept] = await it.store.write(NS, [put("kept")]);
    const left = async () =>
      Number((await server.sql(`SELECT count(*) FROM ${it.schema}.state_entries`))[0]?.["count"]);
    await waitFor(async () => (await left()) === 11, { what: "the others to be forgotten" });
    const changes = await firstChanges(it, 30, 12);
    expect(changes[0]).toEqual({ type: "gap", version: 50 });
    expect(changes.slice(1).map(versionOf)).toEqual(Array.from({ length: 11 }, (_, index) => 51 + index));
    expect((await firstChanges(it, 55, 6)).map(({ type }) => type)).not.toContain("gap");
    expect(kept?.version).toBe(61);
    expect((await firstChanges(it, 5_000, 1))[0]).toEqual({ type: "gap", version: 61 });
  });

  test("what was dropped is cleared away bit by bit, and its versions do not come again", async () => {
    const it = await started();
    await it.store.write(NS, [put("k")]);
    const rows = 2_500;
    await server.sql(
      `INSERT INTO ${it.schema}.state_entries SELECT id, convert_to('k/' || n, 'UTF8'), n + 1, 1, NULL, '1'
       FROM ${it.schema}.state_namespaces, generate_series(1, ${rows}) n`,
    );
    await server.sql(`UPDATE ${it.schema}.state_namespaces SET version = ${rows + 1}`);
    await it.store.drop(NS);
    const [anew] = await it.store.write(NS, [put("k", "anew")]);
    expect(anew?.version).toBeGreaterThan(rows + 1);
    const entries = `SELECT count(*) FROM ${it.schema}.state_entries`;
    await waitFor(async () => (await server.sql(entries))[0]?.["count"] === "1", {
      what: "the rows to go",
      timeoutMs: 10_000,
    });
    await waitFor(
      async () =>
        (await server.sql(`SELECT count(*) FROM ${it.schema}.state_namespaces`))[0]?.["count"] === "1",
      { what: "the old namespace to go" },
    );
    expect((await it.store.get(NS, "k"))?.value).toBe("anew");
  });

  test("a hundred thousand keys are listed by pages, in order", async () => {
    const it = await started();
    await it.store.write(NS, [put("k/000000")]);
    const count = 100_000;
    await server.sql(
      `INSERT INTO ${it.schema}.state_entries
       SELECT id, convert_to('k/' || lpad(n::text, 6, '0'), 'UTF8'), n + 1, 1, NULL, n::text
       FROM ${it.schema}.state_namespaces, generate_series(1, ${count - 1}) n`,
    );
    let seen = 0;
    for (let after: string | undefined, more = true; more; ) {
      const page = await it.store.list(NS, { limit: 1_000, ...(after === undefined ? {} : { after }) });
      for (const { key } of page.entries) expect(key).toBe(`k/${String(seen++).padStart(6, "0")}`);
      after = page.entries.at(-1)?.key;
      more = page.more;
    }
    expect(seen).toBe(count);
  });

  test("a transaction that the server gives up for another's sake is tried again", async () => {
    const it = await started();
    await it.store.write(NS, [put("k", 0)]);
    // The next three to write are refused, as by a deadlock.
    await server.sql(`CREATE SEQUENCE ${it.schema}.tries`);
    await server.sql(
      `CREATE FUNCTION ${it.schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
         IF nextval('${it.schema}.tries') <= 3 THEN RAISE EXCEPTION 'no' USING ERRCODE = '40P01'; END IF;
         RETURN NEW; END $$`,
    );
    await server.sql(
      `CREATE TRIGGER refuse BEFORE UPDATE ON ${it.schema}.state_entries
       FOR EACH ROW EXECUTE FUNCTION ${it.schema}.refuse()`,
    );
    const [entry] = await it.store.write(NS, [put("k", 1)]);
    expect(entry?.version).toBe(2);
    expect((await server.sql(`SELECT last_value FROM ${it.schema}.tries`))[0]?.["last_value"]).toBe("4");
  });

  test("connections that are ended amid writes: what was acknowledged is there, and nobody sees half a write", async () => {
    const it = await started();
    const acknowledged = new Map<string, number>();
    let isOver = false;
    const lane = async (_: unknown, index: number) => {
      for (let value = 1; !isOver; value++) {
        const written = it.store.write(NS, [put(`${index}/a`, value), put(`${index}/b`, value)]);
        const failed = await written.then(
          () => undefined,
          (error: { code: string }) => error,
        );
        if (!failed) acknowledged.set(`${index}`, value);
        else expect(failed.code).toBe("state_unavailable");
        // Refusals come at once.
        if (failed) await new Promise((resolve) => setTimeout(resolve, 10));
      }
    };
    const lanes = Array.from({ length: 8 }, lane);
    for (let round = 0; round < 10; round++) {
      const before = [...acknowledged.values()].reduce((a, b) => a + b, 0);
      await server.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'openstarry-daemon'",
      );
      const goesOn = () => [...acknowledged.values()].reduce((a, b) => a + b, 0) > before + 8;
      await waitFor(goesOn, { what: "writes to go on", timeoutMs: 10_000 });
    }
    isOver = true;
    await Promise.all(lanes);
    await waitFor(() => it.store.health() === undefined, { what: "it to be back" });
    for (const [index, value] of acknowledged) {
      const [a, b] = [await it.store.get(NS, `${index}/a`), await it.store.get(NS, `${index}/b`)];
      expect(a?.value).toBeGreaterThanOrEqual(value);
      expect(b?.value).toBe(a?.value);
    }
  });

  test("a server that is killed: refused at once and told why, and used again when it is back", async () => {
    const it = await started();
    await it.store.write(NS, [put("k", "kept")]);
    const watch = watching(it);
    await it.store.write(NS, [put("seen")]);
    await waitFor(() => watch.seen.length === 1, { what: "the watch to listen" });
    await server.end("SIGKILL");
    try {
      await waitFor(() => it.store.health(), { what: "it to be noticed" });
      await expect(watch.done).rejects.toMatchObject({ code: "state_unavailable" });
      expect(it.store.health()).toMatch(/connection .* is lost|nobody listens|starting or stopping/);
      const began = performance.now();
      for (const act of [it.store.get(NS, "k"), it.store.write(NS, [put("k", 2)]), it.store.namespaces()])
        await expect(act).rejects.toMatchObject({ code: "state_unavailable" });
      expect(performance.now() - began).toBeLessThan(3_000);
      expect(it.problems).toHaveLength(1);
      expect(it.problems[0]).not.toContain(server.password);
    } finally {
      await server.start();
    }
    await waitFor(() => it.store.health() === undefined, { what: "it to be back", timeoutMs: 10_000 });
    expect((await it.store.get(NS, "k"))?.value).toBe("kept");
    expect(it.problems).toEqual([expect.any(String), undefined]);
  });

  describe("what cannot be used is refused with words, and left as it is", () => {
    const failure = (it: Subject) =>
      it.start().then(
        () => undefined,
        (error: unknown) => error,
      );

    test("tables of a newer daemon", async () => {
      const it = await started();
      await server.sql(`UPDATE ${it.schema}.state_meta SET schema_version = 7`);
      const later = subject(it.schema);
      subjects.push(later);
      expect(await failure(later)).toMatchObject({
        code: "config_invalid",
        message: expect.stringMatching(/version 7; this daemon knows versions up to 1/),
        hint: expect.stringMatching(/newer daemon/),
      });
      expect(later.store.health()).toMatch(/version 7/);
    });

    test("tables of something else", async () => {
      const it = subject();
      subjects.push(it);
      await server.sql(`CREATE SCHEMA ${it.schema}`);
      await server.sql(`CREATE TABLE ${it.schema}.state_meta (something text)`);
      expect(await failure(it)).toMatchObject({
        code: "config_invalid",
        message: expect.stringMatching(/tables of something else/),
      });
      const tables = await server.sql("SELECT tablename FROM pg_tables WHERE schemaname = $1", [it.schema]);
      expect(tables).toEqual([{ tablename: "state_meta" }]);
    });

    test("a database that cannot hold every text", async () => {
      await server.sql(
        "CREATE DATABASE latin TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C'",
      );
      const it = subject(undefined, serverOf(server.url.replace("/postgres?", "/latin?")));
      subjects.push(it);
      expect(await failure(it)).toMatchObject({
        code: "config_invalid",
        message: expect.stringMatching(/encoding LATIN1/),
      });
    });

    test("a wrong password and an unknown database are told, and waited for", async () => {
      const canary = "canary-4711";
      const wrong = subject(undefined, serverOf(server.url.replace(/tester:[^@]*/, `tester:${canary}`)));
      const unknown = subject(undefined, serverOf(server.url.replace("/postgres?", "/nowhere?")));
      subjects.push(wrong, unknown);
      await wrong.start();
      await unknown.start();
      expect(wrong.problems).toEqual([expect.stringMatching(/refuses the password/)]);
      expect(unknown.problems).toEqual([expect.stringMatching(/no database of that name/)]);
      const error = await wrong.store.get(NS, "k").catch((it: Error) => it);
      expect(`${(error as Error).stack} ${JSON.stringify(error)} ${wrong.problems}`).not.toContain(canary);
    });
  });
});

test("a server that takes connections and says nothing holds up neither the start nor the stop", async () => {
  let givenUp = 0;
  const silent = createServer((socket) => {
    socket.on("error", () => {}).on("end", () => givenUp++);
    socket.on("data", (text) => text.toString() === "last" && socket.end("heard"));
  }).listen(0, "127.0.0.1");
  await once(silent, "listening");
  const home = mkdtempSync(join(tmpdir(), "state-postgres-"));
  const { port } = silent.address() as AddressInfo;
  const plugins = [statePostgres({ url: `postgres://u@127.0.0.1:${port}/d` })];
  const host = createPluginHost({ plugins, home });
  try {
    await host.start();
    await host.stop();
    // What happened before has been heard of by then.
    const last = connect(port, "127.0.0.1");
    last.write("last");
    await once(last, "data");
    last.destroy();
    // It is given up after five seconds.
    expect(givenUp).toBe(0);
  } finally {
    await host.stop();
    silent.close();
    rmSync(home, { recursive: true });
  }
}, 30_000);

describe("options", () => {
  const check = (options: unknown) => {
    const { success, error } = optionsSchema.safeParse(options);
    return success ? [] : error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
  };

  test.each<[string, Record<string, unknown>, RegExp]>([
    ["neither", {}, /^url: say which server to use/],
    ["both", { managed: true, url: "postgres://h/d" }, /^url: there is "managed" beside it/],
    ["a program without managed", { url: "postgres://h/d", program: "/bin/postgres" }, /^program: it is for/],
    ["two programs", { managed: true, program: "/a", bin_dir: "/b" }, /^bin_dir: there is "program"/],
    [
      "a password file with managed",
      { managed: true, password_file: "/p" },
      /^password_file: it is for "url"/,
    ],
    ["two passwords", { url: "postgres://u:p@h/d", password_file: "/p" }, /^password_file: .*as well/],
    ["another protocol", { url: "mysql://h/d" }, /^url: expected postgres:/],
    ["a parameter that is not known", { url: "postgres://h/d?application_name=x" }, /only host, sslmode/],
    ["a mode of TLS that is not known", { url: "postgres://h/d?sslmode=prefer" }, /not one of disable/],
    ["a schema of the server's own", { managed: true, schema: "pg_x" }, /^schema: expected/],
    ["a schema that would be code", { managed: true, schema: 'a"; DROP' }, /^schema: expected/],
  ])("%s is refused", (_, options, message) => {
    expect(check(options)).toEqual([expect.stringMatching(message)]);
  });

  test("what is wrong with a url is told without it", () => {
    for (const url of [
      "postgres://u:canary@h:x/d",
      "postgres://u:canary@h/d#x",
      "postgres://u:canary%@h/d",
    ]) {
      const [message = ""] = check({ url });
      expect(message).toMatch(/^url: expected/);
      expect(message).not.toContain("canary");
    }
  });

  test("a url says where the server is, and the words for people hold no secret", () => {
    const { place, connection } = serverOf(
      "postgresql://us%40er:p%2Fw@db.example:6543/na%20me?sslmode=verify-full",
    );
    expect(place).toBe("db.example:6543");
    expect(connection).toEqual({
      host: "db.example",
      port: 6543,
      user: "us@er",
      password: "p/w",
      database: "na me",
      ssl: {},
    });
    expect(serverOf("postgres://u@/d?host=/run/pg").connection).toMatchObject({
      host: "/run/pg",
      port: 5432,
    });
    expect(serverOf("postgres://u@[::1]/d").connection).toMatchObject({ host: "::1" });
  });
});
