import { isService } from "../../core/contracts/agent.js";
import { createKernel, type Kernel } from "../../core/kernel.js";
import { sectionOrigins } from "../../plugins/builtins.js";
import { packageVersion } from "../version.js";
import { type DaemonInfo, writeDaemonInfo } from "./daemon-info.js";
import type { ReadyReport } from "./parent-channel.js";
import type { RunningDaemon } from "./running-daemon.js";

/** How long a start waits at most for the first agents, and what they require, so that it can say what became of them. */
const FIRST_LOOK_MS = 3_000;

/**
 * Makes a kernel of what the config says and starts it; then tells the world by `daemon.json`. Rejects
 * with nothing left behind but agents that were adopted. `restartProblem` is why this daemon boots once
 * more instead of its successor.
 */
export async function bootKernel(
  daemon: RunningDaemon,
  { fresh = false, restartProblem }: { fresh?: boolean; restartProblem?: string },
): Promise<void> {
  const { options, setup } = daemon;
  const kernel = createKernel({
    plugins: setup.plugins,
    config: setup.config,
    configFile: setup.path,
    fresh,
    dataDir: options.home,
    sectionOrigins,
    version: packageVersion(),
    pid: process.pid,
    log: daemon.log,
    control: daemon.control,
    sockets: daemon.sockets,
  });
  daemon.kernel = kernel;
  await kernel.start();
  daemon.sockets.closeUnclaimed();
  tellWhere(daemon, {
    ...describe(daemon, kernel),
    restart_problem: restartProblem,
  });
}

const TELL_AGAIN_MS = 5_000;

/** On a full disk this comes later: agents that are supervised are worth more than who can be told so. */
function tellWhere(daemon: RunningDaemon, info: DaemonInfo): void {
  const { kernel, log } = daemon;
  try {
    writeDaemonInfo(info);
  } catch (error) {
    log.warn({ err: error }, "daemon.json could not be written; it is tried again");
    setTimeout(() => {
      const current = daemon.kernel === kernel && kernel.status().state === "ready";
      if (current) tellWhere(daemon, info);
    }, TELL_AGAIN_MS).unref();
  }
}

function describe({ options, setup }: RunningDaemon, kernel: Kernel): DaemonInfo {
  const { pid, started_at, version } = kernel.status();
  return {
    pid,
    started_at,
    version,
    home: options.home,
    ...addresses(kernel),
    config: setup.path,
  };
}

/** Where the API listens, as its endpoints say. */
function addresses(kernel: Kernel): Pick<DaemonInfo, "port" | "url" | "socket"> {
  const nobody = { agent_id: "", run_id: "" };
  const at = (protocol: string) =>
    kernel
      .endpoints()
      .find((endpoint) => endpoint.protocol === protocol && endpoint.name.startsWith("api"))
      ?.urlFor(nobody);
  const url = at("http");
  const socket = at("unix");
  return {
    url,
    port: url === undefined ? undefined : Number(new URL(url).port),
    socket,
  };
}

/** What `start` prints. */
export async function readyReport(daemon: RunningDaemon): Promise<ReadyReport> {
  const { kernel } = daemon;
  const { started_at: _, port: __, ...info } = describe(daemon, kernel);
  await firstLook(kernel);
  return {
    ...info,
    agents: kernel.agents
      .list()
      .filter((agent) => !isService(agent))
      .map(({ agent_id, state, pid, reason }) => ({
        agent_id,
        state,
        pid,
        reason,
      })),
    problems: kernel.status().problems,
    notices: daemon.setup.notices,
  };
}

/** Waits until every agent that is to run has a process, or has waited long enough for another one. */
async function firstLook({ agents }: Kernel): Promise<void> {
  const endsAt = performance.now() + FIRST_LOOK_MS;
  for (const condition of ["launched", "ready"] as const) {
    const coming = agents.list().filter(({ desired, state }) => desired === "running" && state === "pending");
    const timeoutMs = Math.max(0, endsAt - performance.now());
    await Promise.allSettled(coming.map(({ agent_id }) => agents.wait(agent_id, condition, { timeoutMs })));
  }
}
