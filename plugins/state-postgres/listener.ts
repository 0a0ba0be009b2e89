import pg from "pg";
import type { Clock } from "../../core/index.js";

/** The connection that is always there: hears of changes, tells of them, and notices when the server is gone. */
export interface Listener {
  /** Rejects when it cannot be had. `prepare` is the first to use it. */
  connect(prepare: (client: pg.ClientBase) => Promise<void>): Promise<void>;
  /** Called once, when it is lost after it was connected. */
  onLost(act: (error: unknown) => void): void;
  hint(name: string): void;
  end(): void;
}

export interface ListenerOptions {
  schema: string;
  clock: Pick<Clock, "after">;
  onHint: (name: string) => void;
}

/** Hints are gathered so long: each takes a lock that all who notify in this database share. */
const GATHER_MS = 20;
/** How often the server is asked whether it is there, and how long it may take to say so. */
const ALIVE_MS = 2_000;
const ANSWER_MS = 5_000;

export function createListener(config: pg.ClientConfig, options: ListenerOptions): Listener {
  const { clock, onHint } = options;
  const channel = `${options.schema}.state`;
  const client = new pg.Client({ ...config, query_timeout: ANSWER_MS });
  const waiting = new Set<string>();
  let cancel: (() => void) | undefined;
  let cancelAlive = () => {};
  let isOver = false;
  let tellLost: ((error: unknown) => void) | undefined;
  let lostBy: unknown;

  function lose(error: unknown): void {
    if (isOver) return;
    isOver = true;
    lostBy = error ?? new Error("closed");
    cancelAlive();
    cancel?.();
    client.end().catch(() => {});
    tellLost?.(lostBy);
  }

  function keepAlive(): void {
    cancelAlive = clock.after(ALIVE_MS, () => void client.query("SELECT 1").then(keepAlive, lose));
  }

  function tell(): void {
    cancel = undefined;
    const names = [...waiting];
    waiting.clear();
    // Lost ones are made good: everybody looks for changes every now and then.
    client
      .query("SELECT pg_notify($1, name) FROM unnest($2::text[]) AS name", [channel, names])
      .catch(() => {});
  }

  client.on("error", lose);
  client.on("end", () => lose(undefined));
  client.on("notification", ({ processId, payload = "" }) => {
    if (processId !== (client as unknown as { processID: number }).processID)
      onHint(Buffer.from(payload, "hex").toString());
  });

  return {
    async connect(prepare) {
      await client.connect();
      await prepare(client);
      // Nothing that is told here has to be on a disk.
      await client.query("SET synchronous_commit = off");
      await client.query(`LISTEN "${channel}"`);
      keepAlive();
    },
    onLost(act) {
      tellLost = act;
      if (isOver) act(lostBy);
    },
    hint(name) {
      if (isOver) return;
      waiting.add(Buffer.from(name).toString("hex"));
      cancel ??= clock.after(GATHER_MS, tell);
    },
    end() {
      isOver = true;
      cancelAlive();
      cancel?.();
      client.end().catch(() => {});
    },
  };
}
