import { join, resolve } from "node:path";
import { OpenStarryError } from "../../core/contracts/errors.js";
import { paintState } from "../agent-view.js";
import { HOME_FILES, prepareHome } from "../daemon/home.js";
import { closeInheritedDescriptors } from "../daemon/inherited-fds.js";
import { daemonRunning, lockHolder } from "../daemon/lock.js";
import type { ReadyReport } from "../daemon/parent-channel.js";
import { dropServiceManager } from "../daemon/service-manager.js";
import { spawnDaemon } from "../daemon/spawn-daemon.js";
import type { CommandHandler, Invocation } from "../invocation.js";
import { neutralise } from "../neutralise.js";
import type { Terminal } from "../output.js";
import { facts } from "../table.js";

interface Options {
  foreground?: boolean;
  config?: string;
  port?: number;
  fresh?: boolean;
  json?: boolean;
}

const MAX_AGENTS_SHOWN = 20;

/** Starts the daemon: in this process, or in a session of its own and then returns when it is ready. */
export const start: CommandHandler<Options> = async (invocation) => {
  const { options, home, terminal, env } = invocation;
  requireLinux();
  const asked = {
    home,
    cwd: process.cwd(),
    config: options.config && resolve(options.config),
    port: options.port,
    fresh: options.fresh ?? false,
  };
  if (options.foreground) {
    const { runDaemon } = await import("../daemon/daemon.js");
    return runDaemon(asked);
  }
  prepareHome(home);
  if (lockHolder(home) !== undefined) throw daemonRunning(home);
  closeInheritedDescriptors([]);
  const daemon = spawnDaemon({ ...asked, env: dropServiceManager({ ...env }) });
  try {
    const report = await daemon.ready();
    if (options.json) terminal.json(report);
    else explain(invocation, report);
  } catch (error) {
    await daemon.end();
    throw error;
  } finally {
    daemon.release();
  }
  return undefined;
};

function requireLinux(): void {
  if (process.platform === "linux") return;
  throw new OpenStarryError("platform_unsupported", {
    detail: `the daemon requires Linux, this is ${process.platform}`,
    hint: "run it in a Linux machine or container",
  });
}

function explain({ terminal, home }: Invocation<Options>, report: ReadyReport): void {
  const { print, style } = terminal;
  print(
    `${style("openstarry-daemon is ready", "bold", "green")} (pid ${report.pid}, version ${report.version})`,
  );
  print("");
  const lines = facts(terminal, [
    ["API", report.url],
    ["socket", report.socket],
    ["config", report.config ?? "none (create one with: openstarry-daemon init)"],
    ["home", home],
    ["log", join(home, HOME_FILES.log)],
  ]);
  for (const line of lines) print(`  ${line}`);
  print("");
  printAgents(terminal, report.agents);
  for (const notice of report.notices)
    terminal.warn(`${style("notice:", "bold", "yellow")} ${neutralise(notice)}`);
  for (const problem of report.problems)
    terminal.warn(`${style("problem:", "bold", "yellow")} ${neutralise(problem)}`);
  print("");
  print(nextSteps(report));
}

function printAgents(terminal: Terminal, agents: ReadyReport["agents"]): void {
  const current = agents.filter(({ state }) => state !== "stopped" && state !== "exited");
  const shown = current.slice(0, MAX_AGENTS_SHOWN);
  terminal.print(current.length === 0 ? "No agents are running." : "Agents:");
  const width = Math.max(0, ...shown.map(({ agent_id }) => agent_id.length));
  for (const { agent_id, state, pid, reason } of shown) {
    const about = pid === undefined ? neutralise(reason ?? "") : `pid ${pid}`;
    terminal.print(`  ${agent_id.padEnd(width)}  ${paintState(terminal, state)}  ${about}`.trimEnd());
  }
  const rest = agents.length - shown.length;
  if (rest > 0) terminal.print(`  and ${rest} more: openstarry-daemon list`);
}

function nextSteps({ config, agents }: ReadyReport): string {
  if (config === undefined && agents.length === 0) return "Next: openstarry-daemon init";
  const first = agents[0]?.agent_id;
  return first === undefined
    ? "Next: openstarry-daemon templates, openstarry-daemon run TEMPLATE"
    : `Next: openstarry-daemon list, openstarry-daemon logs ${first} -f, openstarry-daemon stop`;
}
