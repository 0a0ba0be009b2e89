import { OpenStarryError } from "../../core/contracts/errors.js";
import type { DaemonControl } from "../../core/contracts/plugin.js";
import { installedVersion, packageVersion } from "../version.js";
import { removeDaemonInfo } from "./daemon-info.js";
import { loadSetup, pluginChanges } from "./daemon-setup.js";
import { handOver } from "./handover.js";
import type { RunningDaemon } from "./running-daemon.js";

/** Makes the control of the daemon as a whole, for plugins and signals. */
export function createControl(daemon: RunningDaemon): DaemonControl {
  return {
    async stop(how) {
      if (daemon.phase === "stopping") return;
      if (daemon.phase === "booting") {
        daemon.stopAsked ??= how;
        return;
      }
      refuseUnlessRunning(daemon);
      void stopDaemon(daemon, how);
    },
    async restart({ actor }) {
      refuseUnlessRunning(daemon);
      await handOver(daemon, actor);
    },
    async reload({ actor }) {
      refuseUnlessRunning(daemon);
      const { setup, log } = daemon;
      const after = await loadSetup(daemon.options);
      const { applied } = await daemon.kernel.reconfigure(after.config);
      const needs_restart = [...pluginChanges(setup.plugins, after.plugins), ...versionChange()];
      setup.config = after.config;
      if (after.path !== undefined) setup.path = after.path;
      for (const notice of after.notices) log.warn({}, notice);
      log.info({ actor, applied, needs_restart }, "config reloaded");
      return { applied, needs_restart };
    },
  };
}

function versionChange(): string[] {
  const [own, installed] = [packageVersion(), installedVersion()];
  return own === installed ? [] : [`version ${installed} is installed; this daemon runs ${own}`];
}

function refuseUnlessRunning({ phase }: RunningDaemon): void {
  if (phase === "running") return;
  if (phase === "stopping") {
    throw new OpenStarryError("daemon_stopping", {
      detail: "the daemon is stopping",
      hint: "start it again after it has exited",
    });
  }
  throw new OpenStarryError("daemon_busy", {
    detail: `the daemon is ${phase}`,
    hint: "try again in a moment",
  });
}

/**
 * Stops agents (or keeps them, as requested or as the config says) and plugins, then ends the process: with 0, or with
 * 1 if something did not stop cleanly.
 */
export async function stopDaemon(
  daemon: RunningDaemon,
  { agents = daemon.setup.config.on_daemon_stop, actor }: Parameters<DaemonControl["stop"]>[0],
): Promise<void> {
  const { log, options } = daemon;
  daemon.phase = "stopping";
  log.info({ actor, agents }, "stopping");
  void daemon.manager?.tell({ STOPPING: 1, STATUS: agents === "keep" ? "Stopping" : "Stopping agents" });
  let exitCode = 0;
  try {
    const reason = `the daemon was stopped by ${actor}`;
    await daemon.kernel.stop({ agents, reason, signal: daemon.force.signal });
  } catch (error) {
    log.error({ err: error }, "the stop was not clean");
    exitCode = 1;
  }
  removeDaemonInfo(options.home);
  daemon.lock.release();
  log.info({}, "stopped");
  daemon.end(exitCode);
}
