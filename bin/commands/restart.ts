import { setTimeout as delay } from "node:timers/promises";
import { OpenStarryError } from "../../core/contracts/errors.js";
import { formatDuration } from "../../core/lib/units.js";
import { connect, notRunning } from "../context.js";
import { type DaemonInfo, readDaemonInfo } from "../daemon/daemon-info.js";
import { lockHolder } from "../daemon/lock.js";
import { identify, isGone, type ProcessIdentity } from "../daemon/process-identity.js";
import type { CommandHandler } from "../invocation.js";

const POLL_MS = 20;
const GIVE_UP_MS = 90_000;
/** During a hand-over the lock is free for a moment; this long only if there is no successor. */
const MAX_UNLOCKED_MS = 5_000;

/** Replaces the daemon and waits until its successor is ready. */
export const restart: CommandHandler<{ json?: boolean }> = async (invocation) => {
  const { home, options, terminal } = invocation;
  const before = readDaemonInfo(home) ?? unknownDaemon(home);
  const old = identify(before.pid);
  await connect(invocation).daemon.restart();
  const after = await successorOf(before, old);
  if (options.json) terminal.json(after);
  else terminal.print(`Daemon replaced: pid ${before.pid} is now pid ${after.pid}. Agents keep running.`);
  return undefined;
};

/** A live daemon whose daemon.json is missing or damaged: its successor writes a new one. */
function unknownDaemon(home: string): DaemonInfo {
  const pid = lockHolder(home);
  if (pid === undefined) throw notRunning(home);
  return { pid, home, started_at: "", version: "" };
}

/** Waits for the successor: until it is ready and its predecessor has exited. */
async function successorOf(before: DaemonInfo, old: ProcessIdentity | undefined): Promise<DaemonInfo> {
  const startedAt = performance.now();
  let heldAt = startedAt;
  for (;;) {
    const now = readDaemonInfo(before.home);
    const oldGone = !old || isGone(old);
    const holder = lockHolder(before.home);
    if (now && now.pid !== before.pid && now.pid === holder && oldGone) return now;
    if (!oldGone || holder !== undefined) heldAt = performance.now();
    else if (performance.now() - heldAt > MAX_UNLOCKED_MS) throw withoutSuccessor(before);
    if (now?.pid === before.pid && now.started_at !== before.started_at) {
      throw new OpenStarryError("plugin_failed", {
        detail: `restart failed, the old daemon (pid ${before.pid}) keeps running: ${now.restart_problem ?? "its successor did not become ready"}`,
        hint: "fix this, then run restart again; daemon.log in its home has details",
      });
    }
    if (performance.now() - startedAt > GIVE_UP_MS) {
      throw new OpenStarryError("timeout", {
        detail: `timed out after ${formatDuration(GIVE_UP_MS)}: the daemon (pid ${before.pid}) has no successor that is ready`,
        hint: "check openstarry-daemon status, and daemon.log in its home",
      });
    }
    await delay(POLL_MS);
  }
}

function withoutSuccessor({ pid, home }: DaemonInfo): OpenStarryError {
  return new OpenStarryError("daemon_not_running", {
    detail: `the daemon (pid ${pid}) has exited, and no successor is running on ${home}`,
    hint: "start it with: openstarry-daemon start; daemon.log in its home has the reason",
  });
}
