import { isService } from "../../core/contracts/agent.js";
import { createKernel, type Kernel } from "../../core/kernel.js";
import { sectionOrigins } from "../../plugins/builtins.js";
import { packageVersion } from "../version.js";
import { type DaemonInfo, writeDaemonInfo } from "./daemon-info.js";
import type { ReadyReport } from "./parent-channel.js";
import type { RunningDaemon } from "./running-daemon.js";

/** How long a start waits for the first agents, and what they require, so that it can report their state. */
const FIRST_AGENTS_MS = 3_000;

/**
 * Creates a kernel for the config, starts it and writes `daemon.json`. Leaves nothing behind when it rejects, except
 * adopted agents. `restartProblem` is why this daemon boots again instead of its successor.
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
  publishInfo(daemon, {
    ...describe(daemon, kernel),
    restart_problem: restartProblem,
  });
}

const RETRY_MS = 5_000;

/** Writes `daemon.json`, and retries on a full disk: supervising agents matters more than being found. */
function publishInfo(daemon: RunningDaemon, info: DaemonInfo): void {
  const { kernel, log } = daemon;
  try {
    writeDaemonInfo(info);
  } catch (error) {
    log.warn({ err: error }, "could not write daemon.json; retrying");
    setTimeout(() => {
      const current = daemon.kernel === kernel && kernel.status().state === "ready";
      if (current) publishInfo(daemon, info);
    }, RETRY_MS).unref();
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

/** Finds where the API listens in its endpoints. */
function addresses(kernel: Kernel): Pick<DaemonInfo, "port" | "url" | "socket"> {
  const noAgent = { agent_id: "", run_id: "" };
  const at = (protocol: string) =>
    kernel
      .endpoints()
      .find((endpoint) => endpoint.protocol === protocol && endpoint.name.startsWith("api"))
      ?.urlFor(noAgent);
  const url = at("http");
  const socket = at("unix");
  return {
    url,
    port: url === undefined ? undefined : Number(new URL(url).port),
    socket,
  };
}

/** Collects what `start` prints. */
export async function readyReport(daemon: RunningDaemon): Promise<ReadyReport> {
  const { kernel } = daemon;
  const { started_at: _, port: __, ...info } = describe(daemon, kernel);
  await settleFirstAgents(kernel);
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

/** Waits until every agent that is desired running has a process and is ready, up to a limit. */
async function settleFirstAgents({ agents }: Kernel): Promise<void> {
  const endsAt = performance.now() + FIRST_AGENTS_MS;
  for (const condition of ["launched", "ready"] as const) {
    const coming = agents.list().filter(({ desired, state }) => desired === "running" && state === "pending");
    const timeoutMs = Math.max(0, endsAt - performance.now());
    await Promise.allSettled(coming.map(({ agent_id }) => agents.wait(agent_id, condition, { timeoutMs })));
  }
}
