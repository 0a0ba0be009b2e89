// Measures the state store: puts and gets of small values, in-process and over HTTP, beside bare libsql, and bare
// fastify over it, with the same durability (a sync of the log before every answer), all in one run.
//   npm run bench:state -- [--keys 1000000] [--requests 20000] [--postgres]
// With --postgres: state-postgres instead, on a server that is started for it.
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { createJiti } from "jiti";
import Database from "libsql";
import pg from "pg";
import { systemClock } from "../../dist/core/index.js";
import { createPostgresStore } from "../../dist/plugins/state-postgres/postgres-store.js";
import { parseUrl } from "../../dist/plugins/state-postgres/server-url.js";
import { createSqliteStore } from "../../dist/plugins/state-sqlite/sqlite-store.js";
import { client } from "./client.mjs";
import { measure, tell } from "./measure.mjs";

const { values: options } = parseArgs({
  options: {
    keys: { type: "string", default: "1000000" },
    requests: { type: "string", default: "20000" },
    postgres: { type: "boolean", default: false },
  },
});
const keys = Number(options.keys);
const requests = Number(options.requests);
const LANES = 64;
const scratch = mkdtempSync(join(tmpdir(), "openstarry-bench-"));
const command = join(dirname(fileURLToPath(import.meta.url)), "../../dist/bin/openstarry-daemon.js");

const keyOf = (index) => `key/${String(index).padStart(8, "0")}`;
const anyValue = (index) => ({ index, text: "x".repeat(80) });
/** Spread over all keys, and the same in every run. */
const anyKey = (index) => keyOf((index * 7_919) % keys);

function measureBare() {
  const database = new Database(join(scratch, "bare.db"));
  database.exec(
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT)",
  );
  const put = database.prepare("INSERT OR REPLACE INTO entries VALUES (?, ?)");
  const get = database.prepare("SELECT value FROM entries WHERE key = ?");
  const began = performance.now();
  for (let at = 0; at < requests; at += LANES) {
    database.exec("BEGIN");
    for (let index = at; index < at + LANES; index++) put.run(keyOf(index), JSON.stringify(anyValue(index)));
    database.exec("COMMIT");
  }
  tell(`bare libsql, ${LANES} puts to a commit`, requests, performance.now() - began);
  const read = performance.now();
  for (let index = 0; index < requests; index++) JSON.parse(get.all(keyOf(index))[0].value);
  tell("bare libsql, gets", requests, performance.now() - read);
  database.close();
}

/** The same client without the store: an upsert of one row, and one read. */
async function measureBarePostgres(server) {
  const bare = new pg.Client({ ...parseUrl(server.url).connection, pipeline: true });
  await bare.connect();
  await bare.query("CREATE TABLE bare (key bytea PRIMARY KEY, value text)");
  const upsert = "INSERT INTO bare VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
  const put = (index) =>
    bare.query({
      name: "put",
      text: upsert,
      values: [Buffer.from(keyOf(index)), JSON.stringify(anyValue(index))],
    });
  const select = "SELECT value FROM bare WHERE key = $1";
  const get = (index) => bare.query({ name: "get", text: select, values: [Buffer.from(keyOf(index))] });
  for (const lanes of [1, LANES]) {
    await measure("bare pg, puts", lanes, requests / 10, put);
    await measure("bare pg, gets", lanes, requests / 10, get);
  }
  await bare.end();
}

async function measurePostgres() {
  const { startPostgres } = await createJiti(import.meta.url).import("../helpers/postgres.ts");
  const server = await startPostgres();
  try {
    await measureBarePostgres(server);
    const given = {
      schema: "bench",
      clock: systemClock,
      maxDeletions: 10_000,
      patienceMs: 0,
      onProblem() {},
    };
    await measureStore("state-postgres", createPostgresStore({ ...parseUrl(server.url), ...given }));
  } finally {
    await server.stop();
  }
}

async function measureStore(name, { store, start, stop }) {
  await start();
  const began = performance.now();
  for (let at = 0; at < keys; at += 100) {
    const batch = Array.from({ length: 100 }, (_, index) => ({
      op: "put",
      key: keyOf(at + index),
      value: anyValue(at + index),
    }));
    await store.write("shared", batch);
  }
  tell(`${name}, filled with ${keys} keys, 100 to a write`, keys, performance.now() - began);
  const put = (index) => store.write("shared", [{ op: "put", key: anyKey(index), value: anyValue(index) }]);
  const get = (index) => store.get("shared", anyKey(index));
  for (const lanes of [1, LANES]) {
    const count = lanes === 1 ? requests / 10 : requests;
    await measure(`${name}, puts`, lanes, count, put);
    await measure(`${name}, gets`, lanes, count, get);
  }
  const pages = Math.min(1_000, keys / 100);
  await measure(`${name}, pages of 100`, LANES, pages, (index) =>
    store.list("shared", { limit: 100, after: anyKey(index) }),
  );
  await stop();
}

async function measureApi(what, port, token) {
  const call = client(port, token, { maxSockets: LANES });
  const ask = async (method, index, body) => {
    const { status } = await call(method, `/state/shared/${anyKey(index)}`, body);
    if (status !== 200) throw new Error(`${method} ${status}`);
  };
  const put = (index) => ask("PUT", index, { value: anyValue(index) });
  // The first requests are those that the engine learns from.
  for (let index = 0; index < 500; index++) await put(index);
  await measure(`${what}, puts`, LANES, requests, put);
  await measure(`${what}, gets`, LANES, requests, (index) => ask("GET", index));
  call.end();
}

async function measureBareHttp() {
  const script = join(dirname(fileURLToPath(import.meta.url)), "bare-state.mjs");
  const server = spawn(process.execPath, [script, join(scratch, "bare-http.db")], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const gone = new Promise((resolve) => server.once("exit", resolve));
  try {
    const port = await new Promise((resolve) => server.stdout.once("data", resolve));
    await measureApi("bare fastify over libsql", Number(port));
  } finally {
    server.kill("SIGTERM");
    await gone;
  }
}

async function measureHttp() {
  const home = join(scratch, "home");
  mkdirSync(home, { mode: 0o700 });
  const config = join(scratch, "config.json");
  writeFileSync(config, JSON.stringify({ plugins: [["http-api", { port: 0 }]] }));
  const log = openSync(join(scratch, "daemon.log"), "w");
  const daemon = spawn(
    process.execPath,
    [command, "start", "--foreground", "--home", home, "--config", config],
    { stdio: ["ignore", log, log] },
  );
  const gone = new Promise((resolve) => daemon.once("exit", resolve));
  try {
    let info;
    for (let tries = 0; info === undefined; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      try {
        info = JSON.parse(readFileSync(join(home, "daemon.json"), "utf8"));
      } catch (error) {
        if (tries > 200) throw error;
      }
    }
    await measureApi("HTTP", info.port, readFileSync(join(home, "token"), "utf8").trim());
  } finally {
    daemon.kill("SIGTERM");
    await gone;
  }
}

try {
  if (options.postgres) await measurePostgres();
  else {
    measureBare();
    const sqlite = { dataDir: scratch, clock: systemClock, maxDeletions: 10_000 };
    await measureStore("state-sqlite", createSqliteStore(sqlite));
    await measureBareHttp();
    await measureHttp();
  }
} finally {
  rmSync(scratch, { recursive: true, force: true, maxRetries: 5 });
}
