import { isOpenStarryError, OpenStarryError, toOpenStarryError } from "../../core/contracts/errors.js";
import type { Logger } from "../../core/contracts/plugin.js";
import { dropAgentVariables } from "../agent-environment.js";
import { exitCodeOf } from "../exit-codes.js";
import { bootKernel, readyReport } from "./boot.js";
import { createControl, stopDaemon } from "./control.js";
import { type DaemonSetup, loadSetup } from "./daemon-setup.js";
import { createHandedSockets } from "./handed-sockets.js";
import { prepareHome } from "./home.js";
import { closeInheritedDescriptors } from "./inherited-fds.js";
import { type Lock, takeLock } from "./lock.js";
import { createLogFile } from "./log-file.js";
import { createLogger } from "./logger.js";
import type { DaemonOptions } from "./options.js";
import {
  type HandedOver,
  openParentChannel,
  type ParentChannel,
  type ReadyReport,
  takeHandedOver,
} from "./parent-channel.js";
import type { RunningDaemon } from "./running-daemon.js";
import { type ServiceManager, statusLine, takeServiceManager } from "./service-manager.js";

/** Time from a third signal to the forced exit. */
const FORCED_END_MS = 2_000;

/**
 * Runs the daemon in this process and resolves with its exit code. An error before it is ready goes to the process that
 * started it, or is thrown if there is none.
 */
export async function runDaemon(options: DaemonOptions): Promise<number> {
  dropAgentVariables(process.env);
  const handedOver = takeHandedOver(process.env);
  const manager = takeServiceManager(process.env);
  const keep = handedOver ? [handedOver.channel_fd, ...Object.values(handedOver.sockets ?? {})] : [];
  closeInheritedDescriptors(keep);
  const channel = handedOver && openParentChannel(handedOver.channel_fd);
  try {
    prepareHome(options.home);
    return await serve(options, { handedOver, channel, manager });
  } catch (cause) {
    if (!channel) throw cause;
    // Standard error is the log, and keeps what the starter does not see.
    if (!isOpenStarryError(cause)) console.error(cause);
    const error = toOpenStarryError(cause);
    await channel.send({ error: { code: error.code, detail: error.message, hint: error.hint } });
    return exitCodeOf(error);
  }
}

/** What started this process. */
interface Starters {
  handedOver: HandedOver | undefined;
  channel: ParentChannel | undefined;
  manager: ServiceManager | undefined;
}

async function serve(options: DaemonOptions, starters: Starters): Promise<number> {
  const { handedOver, channel } = starters;
  const taken = await (handedOver?.successor && channel ? takeOver(options, channel) : takeHome(options));
  let end: (exitCode: number) => void = () => {};
  const ended = new Promise<number>((resolve) => {
    end = resolve;
  });
  const daemon = createDaemon({ ...taken, options, end }, starters);
  logUncaught(daemon.log);
  handleSignals(daemon);
  // Relative paths in plugins start from the home, and the folder of the start is not kept in use.
  process.chdir(options.home);
  // Without an API nothing else keeps the process alive.
  const alive = setInterval(() => {}, 2 ** 30);
  try {
    await bootKernel(daemon, { fresh: options.fresh });
    daemon.phase = "running";
    const report = await readyReport(daemon);
    daemon.log.info(report, "the daemon is ready");
    await channel?.send({ ready: report });
    if (!(await reachManager(starters, report))) {
      daemon.log.warn({}, "the predecessor has exited; the service manager will start another daemon");
      daemon.stopAsked ??= { agents: "keep", actor: "service manager" };
    }
    channel?.close();
    if (daemon.stopAsked) await daemon.control.stop(daemon.stopAsked);
    return await ended;
  } catch (error) {
    daemon.lock.release();
    throw error;
  } finally {
    clearInterval(alive);
  }
}

/**
 * Tells the service manager, if there is one, that the daemon is ready. False for a successor whose predecessor exited
 * without having announced it: the manager then considers the daemon dead and starts another one, which needs the home.
 */
async function reachManager(
  { handedOver, channel, manager }: Starters,
  report: ReadyReport,
): Promise<boolean> {
  if (!manager) return true;
  if (!handedOver?.successor) await manager.tell({ READY: 1, STATUS: statusLine(report) });
  else if (!(await channel?.hear("main"))) return false;
  manager.feedWatchdog();
  return true;
}

function createDaemon(
  parts: Pick<RunningDaemon, "options" | "setup" | "lock" | "end">,
  { handedOver, manager }: Starters,
): RunningDaemon {
  const foreground = handedOver === undefined || handedOver.foreground === true;
  const file = createLogFile(parts.options.home);
  const log = createLogger({ file, console: foreground ? process.stderr : undefined, env: process.env });
  if (manager?.problem !== undefined) {
    log.warn({ problem: manager.problem }, "cannot notify the service manager");
  }
  for (const notice of parts.setup.notices) log.warn({}, notice);
  const daemon = {
    ...parts,
    log,
    foreground,
    manager,
    sockets: createHandedSockets(handedOver?.sockets),
    phase: "booting",
    force: new AbortController(),
    // `control` refers to this object, and so does the kernel, which the boot adds.
  } as unknown as RunningDaemon;
  daemon.control = createControl(daemon);
  return daemon;
}

type Taken = { setup: DaemonSetup; lock: Lock };

/** Takes the lock, then reads the config: a second daemon on this home must not get that far. */
async function takeHome(options: DaemonOptions): Promise<Taken> {
  const lock = await takeLock(options.home);
  try {
    return { lock, setup: await loadSetup(options) };
  } catch (error) {
    lock.release();
    throw error;
  }
}

/** Reads the config, then takes the lock: the predecessor keeps serving until the config is known to be valid. */
async function takeOver(options: DaemonOptions, channel: ParentChannel): Promise<Taken> {
  const setup = await loadSetup(options);
  await channel.send({ prepared: true });
  if (await channel.hear("go")) return { setup, lock: await takeLock(options.home) };
  throw new OpenStarryError("daemon_stopping", { detail: "the daemon that was to be replaced has exited" });
}

/** Logs uncaught errors: a fault in a plugin, or here, must not end the supervision of everything else. */
function logUncaught(log: Logger): void {
  process.on("uncaughtException", (error) => log.error({ err: error }, "uncaught exception"));
  process.on("unhandledRejection", (error) => log.error({ err: error }, "unhandled rejection"));
  // The terminal may be closed.
  process.stderr.on("error", () => {});
}

/** Stops at the first signal, kills agents that are still stopping at the second, exits at the third. */
function handleSignals(daemon: RunningDaemon): void {
  let asked = 0;
  const stop = (signal: NodeJS.Signals) => {
    asked = daemon.phase === "stopping" ? asked + 1 : 0;
    if (daemon.phase === "running") void stopDaemon(daemon, { actor: signal });
    else if (daemon.phase !== "stopping") daemon.stopAsked ??= { actor: signal };
    else if (asked === 1) killAgents(daemon, signal);
    else endNow(daemon, signal);
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  process.on("SIGHUP", (signal) => {
    daemon.control
      .reload({ actor: signal })
      .catch((error) => daemon.log.error({ err: error }, "reload failed; the old config stays in effect"));
  });
}

function killAgents(daemon: RunningDaemon, signal: NodeJS.Signals): void {
  const slow = daemon.kernel.agents.list().filter(({ state }) => state === "stopping");
  daemon.log.warn(
    { signal, agents: slow.map(({ agent_id }) => agent_id) },
    "second stop signal: killing agents",
  );
  daemon.force.abort();
}

function endNow(daemon: RunningDaemon, signal: NodeJS.Signals): void {
  daemon.log.warn({ signal }, "third stop signal: exiting now");
  setTimeout(() => daemon.end(1), FORCED_END_MS).unref();
}
