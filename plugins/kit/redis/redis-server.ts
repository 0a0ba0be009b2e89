import { type PluginContext, sleep } from "../../../core/index.js";
import { type ConnectionOptions, createConnection, type RedisConnection } from "./connection.js";
import { createManagedRedis } from "./managed-redis.js";
import { type RedisChoice, type RedisTarget, targetOf } from "./options.js";

/** The server that a plugin uses, be it its own or one that runs, and the plugin's connections to it. */
export interface RedisServer {
  /** The folder of a server of our own. */
  readonly folder: string | undefined;
  /**
   * At the plugin's start: prepares a server of our own, and runs it where that is not left until it is needed.
   * Rejects with `config_invalid` or `home_unusable`.
   */
  start(): Promise<void>;
  /** A connection, after `start`. All are opened and closed together. */
  connect(
    role: string,
    more?: Pick<ConnectionOptions, "prepare" | "answerTimeoutMs" | "onChange">,
  ): RedisConnection;
  /**
   * After `start` and `connect`. A server that cannot be reached is no reason to fail: it is waited for a moment,
   * and tried on.
   */
  open(): Promise<void>;
  /** Where it is, in words without credentials. After `start`. */
  address(): string;
  /** Somebody is about to use it. Returns at once. */
  wanted(): void;
  /** Why it cannot be used now, in words. */
  health(): string | undefined;
  /** Something about it degrades the plugin, or does not any more; it can be used all the same. */
  note(about: string, problem: string | undefined): void;
  /** Closes all connections; a server of our own runs on. */
  stop(): void;
}

/** How long a start waits for the connections. */
const OPEN_MS = 2_000;
/**
 * How long a server of our own may take to come up before that is a problem of the plugin's, and how soon a problem
 * is told in other words.
 */
const PATIENCE_MS = 5_000;

/** That the connections are lost degrades the plugin for as long as it lasts. */
export function createRedisServer(ctx: PluginContext, choice: RedisChoice): RedisServer {
  const { name, clock, daemon, services } = ctx;
  const managed = choice.managed ? createManagedRedis(ctx, { name, ...choice }) : undefined;
  const connections: RedisConnection[] = [];
  const notes = new Map<string, string | undefined>();
  let target: RedisTarget | undefined;
  let state: "new" | "opening" | "open" | "stopped" = "new";
  let told: string | undefined;
  let retell: (() => void) | undefined;

  const health = () => {
    if (connections.length === 0) return "it is not started";
    const problem = connections.map((it) => it.health()).find((it) => it !== undefined);
    return problem && (managed?.health() ?? problem);
  };
  const wrong = () => health() ?? [...notes.values()].find((it) => it !== undefined);
  function report(): void {
    if (state === "opening" && health() === undefined) state = "open";
    const problem = wrong();
    if (state !== "open" || problem === told || daemon.status().state === "stopping") return;
    // Its words change with each attempt: what it is in the end is told, and not each of them.
    if (problem !== undefined && told !== undefined) retell ??= clock.after(PATIENCE_MS, () => tell(wrong()));
    else tell(problem);
  }
  function tell(problem: string | undefined): void {
    retell?.();
    retell = undefined;
    if (state !== "open" || problem === told) return;
    told = problem;
    if (problem === undefined) daemon.recovered();
    else daemon.degraded(problem);
  }

  async function openAll(): Promise<void> {
    state = "opening";
    const outOfPatience = () => {
      if (state === "opening") state = "open";
      report();
    };
    const tried = Promise.all(connections.map((it) => it.open()));
    if (managed) clock.after(PATIENCE_MS, outOfPatience);
    else void tried.then(outOfPatience);
    await Promise.race([tried, sleep(clock, OPEN_MS)]);
  }

  return {
    folder: managed?.folder,
    async start() {
      await managed?.start();
      target = managed?.target() ?? targetOf(choice);
    },
    connect(role, more) {
      if (!target) throw new Error(`${name} has not been started`);
      const onChange = () => {
        report();
        more?.onChange?.();
      };
      const made = createConnection({ target, role, clock, ...more, onChange });
      connections.push(made);
      return made;
    },
    async open() {
      if (!managed || services.get(name)) await openAll();
    },
    address: () => target?.address ?? name,
    wanted() {
      managed?.wanted();
      if (state === "new") void openAll();
    },
    health,
    note(about, problem) {
      notes.set(about, problem);
      report();
    },
    stop() {
      state = "stopped";
      retell?.();
      for (const it of connections) it.close();
    },
  };
}
