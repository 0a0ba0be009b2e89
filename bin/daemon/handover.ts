import { setTimeout as delay } from "node:timers/promises";
import { OpenStarryError } from "../../core/contracts/errors.js";
import { errorText } from "../../core/lib/error-text.js";
import { bootKernel } from "./boot.js";
import { removeDaemonInfo } from "./daemon-info.js";
import { type Lock, takeLock } from "./lock.js";
import type { RunningDaemon } from "./running-daemon.js";
import { statusLine } from "./service-manager.js";
import { type DaemonChild, spawnDaemon } from "./spawn-daemon.js";

/**
 * Replaces this daemon by a new process; agents and listening sockets stay:
 *
 * 1. The successor starts with copies of the listening sockets, reads config and plugins, and sends `prepared` or its
 *    error. After an error nothing has changed, and this rejects.
 * 2. This daemon releases agents, journal and lock, and sends `go`. New connections wait in the sockets' queues.
 * 3. The successor takes the lock, boots and sends `ready`; this process ends. A successor that fails is killed, and
 *    this process boots a kernel again.
 *
 * Resolves after the first step, so that the client gets its answer before this daemon exits.
 */
export async function handOver(daemon: RunningDaemon, actor: string): Promise<void> {
  refuseInForeground(daemon);
  const { log, options } = daemon;
  daemon.phase = "restarting";
  let successor: DaemonChild | undefined;
  try {
    const config = options.config ?? daemon.setup.path;
    successor = spawnDaemon({
      ...options,
      fresh: false,
      config,
      env: { ...process.env, ...daemon.manager?.env },
      sockets: daemon.sockets.offered,
      successor: true,
      foreground: daemon.foreground,
    });
    await successor.prepared();
  } catch (error) {
    await successor?.end();
    successor?.release();
    await backToRunning(daemon);
    throw error;
  }
  log.info({ actor, successor: successor.pid }, "handing over to a successor");
  void replace(daemon, successor, actor);
}

function refuseInForeground({ foreground, manager }: RunningDaemon): void {
  if (!foreground || manager?.followsSuccessors) return;
  throw new OpenStarryError("restart_unavailable", {
    detail: "a daemon in the foreground cannot be replaced by another process",
    hint: "run openstarry-daemon stop --keep-agents, then start it again where it was started",
  });
}

async function replace(daemon: RunningDaemon, successor: DaemonChild, actor: string): Promise<void> {
  const { log } = daemon;
  try {
    daemon.sockets.setHandedOver(true);
    await daemon.kernel.stop({ agents: "keep", reason: `the daemon was restarted by ${actor}` });
    daemon.lock.release();
    successor.say("go");
    const report = await successor.ready();
    // Before this process ends: the manager trusts messages of this process only. The watchdog time starts anew.
    await daemon.manager?.tell({ MAINPID: successor.pid, WATCHDOG: 1, STATUS: statusLine(report) });
    successor.say("main");
    // A signal that arrived meanwhile was meant for the daemon, which is now the successor.
    if (daemon.stopAsked) successor.kill("SIGTERM");
    successor.release();
    daemon.end(0);
  } catch (error) {
    log.error({ err: error }, "the successor did not become ready; this daemon keeps running");
    await successor.end();
    successor.release();
    await resume(daemon, errorText(error));
  }
}

async function resume(daemon: RunningDaemon, restartProblem: string): Promise<void> {
  try {
    daemon.lock = await retakeLock(daemon.options.home);
    daemon.sockets.setHandedOver(false);
    await bootKernel(daemon, { restartProblem });
    await backToRunning(daemon);
  } catch (error) {
    daemon.log.error({ err: error }, "this daemon could not resume either and exits; agents keep running");
    removeDaemonInfo(daemon.options.home);
    daemon.lock.release();
    daemon.end(1);
  }
}

async function backToRunning(daemon: RunningDaemon): Promise<void> {
  daemon.phase = "running";
  if (daemon.stopAsked) await daemon.control.stop(daemon.stopAsked);
}

/** Takes the lock back: the operating system frees it when the killed successor has exited, usually at once. */
async function retakeLock(home: string): Promise<Lock> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await takeLock(home);
    } catch (error) {
      if (attempt === 50) throw error;
      await delay(100);
    }
  }
}
