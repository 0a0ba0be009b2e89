import { setTimeout as delay } from "node:timers/promises";
import { OpenStarryError } from "../../core/contracts/errors.js";
import { connect, notRunning } from "../context.js";
import { type DaemonInfo, readDaemonInfo } from "../daemon/daemon-info.js";
import { lockHolder } from "../daemon/lock.js";
import { identify, isGone, type ProcessIdentity } from "../daemon/process-identity.js";
import type { CommandHandler } from "../invocation.js";

const POLL_MS = 20;
const GIVE_UP_MS = 90_000;
/** Between two daemons nobody holds the lock for a moment; for so long only when none is coming. */
const NOBODY_MS = 5_000;

/** Has the daemon replaced and waits until its successor is ready. */
export const restart: CommandHandler<{ json?: boolean }> = async (invocation) => {
  const { home, options, terminal } = invocation;
  const before = readDaemonInfo(home) ?? unknownDaemon(home);
  const old = identify(before.pid);
  await connect(invocation).daemon.restart();
  const after = await successorOf(before, old);
  if (options.json) terminal.json(after);
  else
    terminal.print(`The daemon was replaced: pid ${before.pid} is now pid ${after.pid}. Its agents run on.`);
  return undefined;
};

/** One that lives, and whose daemon.json is gone or damaged: its successor writes another. */
function unknownDaemon(home: string): DaemonInfo {
  const pid = lockHolder(home);
  if (pid === undefined) throw notRunning(home);
  return { pid, home, started_at: "", version: "" };
}

/** The successor, once it is ready and its predecessor gone. */
async function successorOf(before: DaemonInfo, old: ProcessIdentity | undefined): Promise<DaemonInfo> {
  const startedAt = performance.now();
  let heldAt = startedAt;
  for (;;) {
    const now = readDaemonInfo(before.home);
    const oldGone = !old || isGone(old);
    const holder = lockHolder(before.home);
    if (now && now.pid !== before.pid && now.pid === holder && oldGone) return now;
    if (!oldGone || holder !== undefined) heldAt = performance.now();
    else if (performance.now() - heldAt > NOBODY_MS) throw nobodyLeft(before);
    if (now?.pid === before.pid && now.started_at !== before.started_at) {
      throw new OpenStarryError("plugin_failed", {
        detail: `the daemon (pid ${before.pid}) goes on, its successor could not: ${now.restart_problem ?? "it did not become ready"}`,
        hint: "mend that and restart it again; daemon.log in its home says more",
      });
    }
    if (performance.now() - startedAt > GIVE_UP_MS) {
      throw new OpenStarryError("timeout", {
        detail: `no successor of the daemon (pid ${before.pid}) became ready within ${GIVE_UP_MS} ms`,
        hint: "openstarry-daemon status shows how it is; daemon.log in its home says more",
      });
    }
    await delay(POLL_MS);
  }
}

function nobodyLeft({ pid, home }: DaemonInfo): OpenStarryError {
  return new OpenStarryError("daemon_not_running", {
    detail: `the daemon (pid ${pid}) is gone, and no successor of it runs on ${home}`,
    hint: "start it with: openstarry-daemon start; daemon.log in its home says what happened",
  });
}
