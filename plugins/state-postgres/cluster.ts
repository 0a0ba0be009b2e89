import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import type { ClientConfig } from "pg";
import { OpenStarryError, type ServiceSpec } from "../../core/index.js";
import { findProgram } from "../kit/managed-server.js";
import { privateFolder, writePrivateFile } from "../kit/private-files.js";
import { readOrCreateSecret, readSecret } from "../kit/secret-file.js";
import { socketPath } from "../kit/socket-path.js";

/** A PostgreSQL of the daemon's own: one data folder in its home, reached by a socket there and nowhere else. */
export interface Cluster {
  /** Finds the server's programs and prepares folders and the password; answers what is run. */
  template(): Promise<ServiceSpec["template"]>;
  connection(): ClientConfig;
}

export interface ClusterOptions {
  /** The daemon's home. */
  dataDir: string;
  /** The file of `postgres`, or its folder. Absent: looked for. */
  program?: string | undefined;
  binDir?: string | undefined;
}

const PLUGIN = "state-postgres";
const USER = "openstarry";
const SOCKET = ".s.PGSQL.5432";
const INSTALL = "apt install postgresql";
const OLDEST = 13;
/** Where packages keep each major version: Debian's, and those of postgresql.org for Red Hat's. */
const PACKAGES: readonly (readonly [folder: string, name: RegExp, bin: string])[] = [
  ["/usr/lib/postgresql", /^(\d+)$/, "bin"],
  ["/usr", /^pgsql-(\d+)$/, "bin"],
];

/**
 * It is not ready while it puts its data in order after a crash, however long that takes; and it is never given up:
 * what keeps it from running, such as a full disk, may end at any time. SIGINT ends its connections and writes
 * everything; SIGTERM would wait for those who are connected.
 */
const BEHAVIOUR = {
  readiness: { type: "log", pattern: "is ready to accept connections", timeout: "24h" },
  restart: { policy: "always", max_restarts: 1_000_000, backoff: { min: "200ms", max: "10s" } },
  stop: { signal: "SIGINT", grace: "30s" },
} as const;

/**
 * Makes the data folder where there is none, beside its place, so that one that was not finished is never used; then
 * becomes the server. A lock file is what a server left that was killed, unless the process that it names serves this
 * very folder: its pid may be another process's by now.
 */
const SCRIPT = `
set -eu
bin=$1 folder=$2 sockets=$3
shift 3
data=$folder/data
if [ ! -e "$data" ]; then
  rm -rf "$data.new"
  "$bin/initdb" -D "$data.new" -U ${USER} --pwfile="$folder/password" --auth=scram-sha-256 \
    --encoding=UTF8 --locale=C --data-checksums
  mv "$data.new" "$data"
  sync "$folder"
fi
pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null || true)
if [ -z "$pid" ] || ! tr '\\0' '\\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF -e "$data"; then
  rm -f "$data/postmaster.pid" "$sockets/${SOCKET}" "$sockets/${SOCKET}.lock"
fi
exec "$bin/postgres" -D "$data" "$@"
`;

export function createCluster({ dataDir, binDir, program }: ClusterOptions): Cluster {
  const home = join(dataDir, PLUGIN);
  const data = join(home, "data");
  const password = join(home, "password");
  const hba = join(home, "pg_hba.conf");
  const sockets = () => dirname(socketPath(join(home, "run"), SOCKET));

  function prepareFolders(): string {
    privateFolder(home);
    privateFolder(join(home, "run"));
    if (existsSync(data) && readSecret(password) === undefined) {
      throw new OpenStarryError("home_unusable", {
        detail: `${password} is gone, and the database in ${data} lets nobody in without it`,
        hint: `put it back from a backup, or move ${data} away: agents then find an empty store`,
      });
    }
    readOrCreateSecret(password);
    writePrivateFile(hba, `local all ${USER} scram-sha-256\n`);
    return sockets();
  }

  return {
    async template() {
      const bin = findBin(program ?? (binDir && join(binDir, "postgres")), majorOf(data));
      await assertVersion(bin, data);
      const unshare = process.geteuid?.() === 0 ? await asSomebody() : [];
      const folder = prepareFolders();
      const settings = {
        listen_addresses: "",
        unix_socket_directories: `"${folder.replaceAll('"', '""')}"`,
        unix_socket_permissions: "0700",
        port: "5432",
        hba_file: hba,
        password_encryption: "scram-sha-256",
        fsync: "on",
        full_page_writes: "on",
        synchronous_commit: "on",
        log_destination: "stderr",
        logging_collector: "off",
      };
      const given = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
      const [command = "", ...args] = [
        ...unshare,
        "/bin/sh",
        "-c",
        SCRIPT,
        "sh",
        bin,
        home,
        folder,
        ...given,
      ];
      return {
        description: "PostgreSQL, which holds what agents keep.",
        command,
        args,
        cwd: home,
        env: { LC_ALL: "C" },
        ...BEHAVIOUR,
      };
    },
    connection: () => ({
      host: sockets(),
      port: 5432,
      user: USER,
      database: "postgres",
      password: () => readSecret(password) ?? "",
      // Without these the driver takes those of the daemon's environment, PGSSLMODE and PGOPTIONS.
      ssl: false,
      options: "-c default_transaction_read_only=off",
    }),
  };
}

/** The major version that made this data folder; `undefined` where there is none. */
function majorOf(data: string): number | undefined {
  try {
    return Number.parseInt(readFileSync(join(data, "PG_VERSION"), "utf8"), 10);
  } catch {
    // Not made yet.
    return undefined;
  }
}

/** The folder of the server's programs: the one named, of the version that made the data, or the newest. */
function findBin(named: string | undefined, wanted: number | undefined): string {
  const installed = PACKAGES.flatMap(([folder, name, bin]) =>
    list(folder).flatMap((it) => {
      const major = name.exec(it)?.[1];
      return major === undefined ? [] : [{ major: Number(major), path: join(folder, it, bin) }];
    }),
  ).sort((a, b) => b.major - a.major);
  const fitting = installed.find(({ major, path }) => major === wanted && existsSync(join(path, "postgres")));
  const program = findProgram({
    name: "postgres",
    path: named ?? (fitting && join(fitting.path, "postgres")),
    folders: installed.map(({ path }) => path),
    install: INSTALL,
    plugin: PLUGIN,
  });
  const bin = dirname(realpathSync(program));
  findProgram({ name: "initdb", path: join(bin, "initdb"), install: INSTALL, plugin: PLUGIN });
  return bin;
}

async function assertVersion(bin: string, data: string): Promise<void> {
  const program = join(bin, "postgres");
  const { stdout } = await run(program, ["--version"]).catch((cause) => {
    throw new OpenStarryError("config_invalid", {
      detail: `state-postgres: ${program} does not answer to --version`,
      hint: `see that it runs, install it anew (${INSTALL}), or name a server that runs with "url"`,
      cause,
    });
  });
  const major = Number(/\(PostgreSQL\) (\d+)/.exec(stdout)?.[1]);
  if (!(major >= OLDEST)) {
    throw new OpenStarryError("config_invalid", {
      detail: `state-postgres: ${bin} holds PostgreSQL ${stdout.trim()}; ${OLDEST} or later is needed`,
      hint: `install a later one (${INSTALL}), or name its folder with the option "bin_dir"`,
    });
  }
  const made = majorOf(data);
  if (made === undefined || made === major) return;
  throw new OpenStarryError("config_invalid", {
    detail: `state-postgres: ${data} was made by PostgreSQL ${made}, and ${bin} holds ${major}`,
    hint: `install PostgreSQL ${made}, or bring the data over with pg_upgrade or a dump, as the plugin's README says`,
  });
}

/**
 * The server refuses to be run by root. In a user namespace root is somebody else, and its files remain its own:
 * unshare(1) executes what follows, so that it is the same process.
 */
async function asSomebody(): Promise<string[]> {
  const unshare = findProgram({
    name: "unshare",
    install: "apt install util-linux",
    plugin: PLUGIN,
  });
  const words = [unshare, "--user", ...somebody(), "--"];
  await run(unshare, [...words.slice(1), "/bin/true"]).catch((cause) => {
    throw new OpenStarryError("config_invalid", {
      detail:
        "state-postgres: PostgreSQL refuses to be run by root, and this system lets root make no user namespace in " +
        "which it could be somebody else",
      hint: 'run the daemon as an ordinary user, or name a server that runs with "url"',
      cause,
    });
  });
  return words;
}

/** Any user with a name: initdb looks itself up. */
function somebody(): string[] {
  const users = readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .map((line) => line.split(":"));
  const found = ["postgres", "daemon", "nobody"].flatMap((name) => users.find(([it]) => it === name) ?? []);
  const [, , uid = "65534", gid = "65534"] = found.length > 0 ? found : [];
  return [`--map-user=${uid}`, `--map-group=${gid}`];
}

const run = (file: string, args: readonly string[]) =>
  promisify(execFile)(file, args, { timeout: 10_000, encoding: "utf8" });

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    // Not here: the next place.
    return [];
  }
}
