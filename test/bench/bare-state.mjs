// What there is without a daemon: fastify over libsql, a commit with a sync of the log for every put. Started by
// state.mjs with the database's path; prints its port.
import fastify from "fastify";
import Database from "libsql";

const database = new Database(process.argv[2]);
database.exec(
  "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value TEXT)",
);
const put = database.prepare("INSERT OR REPLACE INTO entries VALUES (?, ?)");
const get = database.prepare("SELECT value FROM entries WHERE key = ?");
const app = fastify();
app.put("/state/shared/*", ({ params, body }) => {
  put.run(params["*"], JSON.stringify(body.value));
  return { key: params["*"] };
});
app.get("/state/shared/*", ({ params }) => {
  const key = params["*"];
  return { key, value: JSON.parse(get.all(key)[0]?.value ?? "null") };
});
await app.listen({ host: "127.0.0.1", port: 0 });
console.log(app.server.address().port);
