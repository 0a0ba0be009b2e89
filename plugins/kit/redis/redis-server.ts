import { type PluginContext, sleep } from "../../../core/index.js";
import { type ConnectionOptions, createConnection, type RedisConnection } from "./connection.js";
import { createManagedRedis } from "./managed-redis.js";
import { type RedisServerOptions, type RedisTarget, targetOf } from "./options.js";

/** The Redis server of a plugin, managed or external, and the plugin's connections to it. */
export interface RedisServer {
  /** The folder of a managed server. */
  readonly folder: string | undefined;
  /**
   * Prepares a managed server at the plugin's start, and runs it unless it starts on first use. Rejects with
   * `config_invalid` or `home_unusable`.
   */
  start(): Promise<void>;
  /** Creates a connection, after `start`. All connections are opened and closed together. */
  connect(
    role: string,
    more?: Pick<ConnectionOptions, "prepare" | "answerTimeoutMs" | "onChange">,
  ): RedisConnection;
  /**
   * Opens the connections, after `start` and `connect`, and waits a moment for them. Does not reject when the server
   * cannot be reached: the connections keep trying.
   */
  open(): Promise<void>;
  /** Returns the address without credentials. After `start`. */
  address(): string;
  /** Starts a managed server that starts on first use. Returns at once. */
  requestStart(): void;
  /** Says why the server cannot be used now; `undefined` when it can. */
  health(): string | undefined;
  /** Sets or clears a problem that degrades the plugin although the server can be used. */
  setProblem(source: string, problem: string | undefined): void;
  /** Closes all connections. A managed server keeps running. */
  stop(): void;
}

/** How long the plugin's start waits for the connections. */
const OPEN_TIMEOUT_MS = 2_000;
/** How long a managed server may take to start before that is a problem, and how soon changed words are reported. */
const PATIENCE_MS = 5_000;

/** Creates the server of a plugin. The plugin is degraded while a connection is lost. */
// Longer than 100 lines: the state of the connections and of what was reported about them is one.
export function createRedisServer(ctx: PluginContext, options: RedisServerOptions): RedisServer {
  const { name, clock, daemon, services } = ctx;
  const managed = options.managed ? createManagedRedis(ctx, { name, ...options }) : undefined;
  const connections: RedisConnection[] = [];
  const problems = new Map<string, string | undefined>();
  let target: RedisTarget | undefined;
  let state: "new" | "opening" | "open" | "stopped" = "new";
  let reported: string | undefined;
  let cancelDelayedReport: (() => void) | undefined;

  const health = () => {
    if (connections.length === 0) return "not started yet";
    const problem = connections.map((it) => it.health()).find((it) => it !== undefined);
    return problem && (managed?.health() ?? problem);
  };
  const currentProblem = () => health() ?? [...problems.values()].find((it) => it !== undefined);
  function update(): void {
    if (state === "opening" && health() === undefined) state = "open";
    const problem = currentProblem();
    if (state !== "open" || problem === reported || daemon.status().state === "stopping") return;
    // The words change with each attempt to connect; only those that last are reported.
    if (problem !== undefined && reported !== undefined) {
      cancelDelayedReport ??= clock.after(PATIENCE_MS, () => report(currentProblem()));
    } else report(problem);
  }
  function report(problem: string | undefined): void {
    cancelDelayedReport?.();
    cancelDelayedReport = undefined;
    if (state !== "open" || problem === reported) return;
    reported = problem;
    if (problem === undefined) daemon.recovered();
    else daemon.degraded(problem);
  }

  async function openAll(): Promise<void> {
    state = "opening";
    const onTimeout = () => {
      if (state === "opening") state = "open";
      update();
    };
    const attempts = Promise.all(connections.map((it) => it.open()));
    if (managed) clock.after(PATIENCE_MS, onTimeout);
    else void attempts.then(onTimeout);
    await Promise.race([attempts, sleep(clock, OPEN_TIMEOUT_MS)]);
  }

  return {
    folder: managed?.folder,
    async start() {
      await managed?.start();
      target = managed?.target() ?? targetOf(options);
    },
    connect(role, more) {
      if (!target) throw new Error(`${name} has not been started`);
      const onChange = () => {
        update();
        more?.onChange?.();
      };
      const connection = createConnection({ target, role, clock, ...more, onChange });
      connections.push(connection);
      return connection;
    },
    async open() {
      if (!managed || services.get(name)) await openAll();
    },
    address: () => target?.address ?? name,
    requestStart() {
      managed?.wanted();
      if (state === "new") void openAll();
    },
    health,
    setProblem(source, problem) {
      problems.set(source, problem);
      update();
    },
    stop() {
      state = "stopped";
      cancelDelayedReport?.();
      for (const it of connections) it.close();
    },
  };
}
