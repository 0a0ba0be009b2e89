import { type ErrorCode, isOpenStarryError } from "../../core/contracts/errors.js";
import type { DaemonStatus } from "../../core/contracts/plugin.js";
import { paintState, since } from "../agent-view.js";
import { connect, notRunning } from "../context.js";
import { type DaemonInfo, readDaemonInfo } from "../daemon/daemon-info.js";
import { lockHolder } from "../daemon/lock.js";
import { EXIT } from "../exit-codes.js";
import type { CommandHandler, Invocation } from "../invocation.js";
import { neutralise } from "../neutralise.js";
import type { Terminal } from "../output.js";
import { printError } from "../print-error.js";
import { facts } from "../table.js";

/** What `--json` prints; without a daemon, only `running` and `home`. */
interface Report extends Partial<DaemonInfo> {
  running: boolean;
  home: string;
  state?: DaemonStatus["state"];
  problems?: string[];
  /** The number of agents in each state. */
  agents?: Record<string, number>;
}

/** Shows whether a daemon is running, and its health. Exits with 3 if none is running. */
export const status: CommandHandler<{ json?: boolean }> = async (invocation) => {
  const { home, options, terminal } = invocation;
  const report = await look(invocation);
  if (options.json) terminal.json(report);
  else if (report.running) explain(terminal, report);
  else printError(terminal, notRunning(home));
  return report.running ? EXIT.done : EXIT.noDaemon;
};

/** Errors after which the report contains what is known without the API. */
const WITHOUT_STATUS: Partial<Record<ErrorCode, string>> = {
  daemon_not_running: "the API does not respond",
  not_found: "no status available: the config disables the plugin operation-daemon",
};

async function look(invocation: Invocation): Promise<Report> {
  const { home } = invocation;
  const info = readDaemonInfo(home);
  try {
    const client = connect(invocation);
    const { endpoints: _, ...now } = await client.daemon.status();
    return { ...info, ...now, running: true, home };
  } catch (error) {
    const why = isOpenStarryError(error) ? WITHOUT_STATUS[error.code] : undefined;
    if (why === undefined) throw error;
    const pid = lockHolder(home);
    if (pid === undefined) return { running: false, home };
    const known = info?.pid === pid ? info : {};
    return { ...known, running: true, home, pid, problems: [why] };
  }
}

function explain(terminal: Terminal, report: Report): void {
  const { pid, version, state, started_at, url, socket, config, home, problems = [] } = report;
  const agents = Object.entries(report.agents ?? {})
    .filter(([, count]) => count > 0)
    .map(([name, count]) => `${count} ${paintState(terminal, name)}`);
  terminal.print(`${terminal.style("openstarry-daemon", "bold")} ${`is ${state ?? "running"}`}`);
  const lines = facts(terminal, [
    ["pid", pid?.toString()],
    ["version", version],
    ["up", since(started_at, Date.now())],
    ["API", url],
    ["socket", socket],
    ["config", config ?? "none"],
    ["home", home],
    ["agents", report.agents && (agents.join(", ") || "none")],
  ]);
  for (const line of lines) terminal.print(`  ${line}`);
  const { restart_problem } = report;
  for (const problem of restart_problem
    ? [...problems, `last restart failed: ${restart_problem}`]
    : problems) {
    terminal.print(`${terminal.style("problem:", "bold", "yellow")} ${neutralise(problem)}`);
  }
}
