import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { waitFor } from "./wait-for.js";

/** The folder of PostgreSQL's programs. */
export const postgresBin = findBin();

/**
 * Why there is no PostgreSQL here, for `test.skipIf`. With `CI_REQUIRE_SERVICES=1` that is an error instead: there the
 * test must not be left out.
 */
export const noPostgres = reasonWithout();

export interface TestPostgres {
  /** Of a superuser, over a unix socket, to the database `postgres`. */
  readonly url: string;
  readonly password: string;
  /** The folder of its socket. */
  readonly sockets: string;
  pid(): number;
  /** Runs a statement as that user; several, with no values, answer nothing. */
  sql(text: string, values?: unknown[]): Promise<Record<string, unknown>[]>;
  start(): Promise<void>;
  /** Ends it so, and waits for its end. */
  end(signal: "SIGINT" | "SIGKILL"): Promise<void>;
  /** Ends it and removes its folder. */
  stop(): Promise<void>;
}

/** A server with a folder and a socket of its own, and no port. As root it is run as `nobody`. */
export async function startPostgres(): Promise<TestPostgres> {
  const folder = mkdtempSync(join(tmpdir(), "openstarry-pg-"));
  const data = join(folder, "data");
  const password = `p-${Math.random().toString(36).slice(2)}-%/@ é`;
  const nobody = process.geteuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};
  const program = (name: string) => join(postgresBin ?? "", name);
  const secret = join(folder, "password");
  writeFileSync(secret, password);
  if (nobody.uid !== undefined) for (const path of [folder, secret]) chownSync(path, nobody.uid, nobody.gid);
  chmodSync(folder, 0o700);
  const words = [
    "-U",
    "tester",
    `--pwfile=${secret}`,
    "-A",
    "scram-sha-256",
    "-E",
    "UTF8",
    "--locale=C",
    "-N",
  ];
  execFileSync(program("initdb"), ["-D", data, ...words], { ...nobody, cwd: folder, stdio: "ignore" });

  let child: ChildProcess | undefined;
  const kill = () => void child?.kill("SIGKILL");
  process.once("exit", kill);
  const url = `postgres://tester:${encodeURIComponent(password)}@/postgres?host=${folder}`;
  const sql = async (text: string, values?: unknown[]) => {
    const client = new pg.Client({ host: folder, user: "tester", password, database: "postgres" });
    client.on("error", () => {});
    await client.connect();
    try {
      return (await client.query(text, values)).rows ?? [];
    } finally {
      await client.end();
    }
  };
  const it: TestPostgres = {
    url,
    password,
    sockets: folder,
    pid: () => child?.pid ?? 0,
    sql,
    async start() {
      const isUp = async () => {
        // One that was killed leaves children for a moment, with whom the next one does not start.
        if (child === undefined || child.exitCode !== null || child.signalCode !== null) {
          const settings = ["listen_addresses=", `unix_socket_directories=${folder}`].flatMap((it) => [
            "-c",
            it,
          ]);
          child = spawn(program("postgres"), ["-D", data, ...settings], {
            ...nobody,
            cwd: folder,
            stdio: "ignore",
          });
        }
        return (await sql("SELECT 1")).length === 1;
      };
      await waitFor(isUp, { timeoutMs: 30_000, what: "PostgreSQL to answer" });
    },
    async end(signal) {
      const running = child;
      if (!running || running.exitCode !== null || running.signalCode !== null) return;
      const gone = new Promise((resolve) => running.once("exit", resolve));
      running.kill(signal);
      await gone;
    },
    async stop() {
      await it.end("SIGINT");
      process.off("exit", kill);
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
  await it.start();
  return it;
}

/** The newest of those that Debian's packages have put there, or the one in PATH. */
function findBin(): string | undefined {
  const packages = "/usr/lib/postgresql";
  const versions = existsSync(packages) ? readdirSync(packages).filter((name) => /^\d+$/.test(name)) : [];
  const newest = versions.sort((a, b) => Number(b) - Number(a)).map((name) => join(packages, name, "bin"));
  const folders = [...newest, ...(process.env["PATH"] ?? "").split(":")];
  return folders.find((folder) => ["initdb", "postgres"].every((name) => existsSync(join(folder, name))));
}

function reasonWithout(): string | undefined {
  if (postgresBin !== undefined) return undefined;
  const missing = "there is no PostgreSQL here (Debian package postgresql)";
  if (process.env["CI_REQUIRE_SERVICES"] === "1") throw new Error(missing);
  console.warn(`left out: ${missing}`);
  return missing;
}
