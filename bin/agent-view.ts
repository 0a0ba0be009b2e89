import { constants } from "node:os";
import {
  type Agent,
  type AgentState,
  type Exit,
  type ExitStatus,
  LIMIT_NAMES,
  type LimitName,
} from "../core/contracts/agent.js";
import { formatDuration, formatSize } from "../core/lib/units.js";
import { neutralise } from "./neutralise.js";
import type { Style, Terminal } from "./output.js";
import type { Column } from "./table.js";

const STATE_STYLES: Record<AgentState, readonly Style[]> = {
  pending: ["yellow"],
  starting: ["cyan"],
  running: ["green"],
  stopping: ["yellow"],
  backoff: ["yellow"],
  stopped: ["dim"],
  exited: ["dim"],
  failed: ["red", "bold"],
};

function stateStyle({ state, last_exit }: Pick<Agent, "state" | "last_exit">): readonly Style[] {
  return state === "exited" && last_exit?.success === false ? ["red"] : STATE_STYLES[state];
}

export function paintState(terminal: Terminal, state: string): string {
  return terminal.style(neutralise(state), ...(STATE_STYLES[state as AgentState] ?? []));
}

/** `"3m 2s"`, from then to now, in whole seconds; nothing for a time that cannot be read. */
export function since(time: string | undefined, nowMs: number): string | undefined {
  const seconds = Math.floor((nowMs - Date.parse(time ?? "")) / 1_000);
  if (Number.isNaN(seconds)) return undefined;
  return seconds <= 0 ? "0s" : formatDuration(seconds * 1_000);
}

/** How a run ended, in words: `exited with code 1`, `ended by SIGKILL`. */
export function describeExit(exit: ExitStatus): string {
  switch (exit.kind) {
    case "exited":
      return `exited with code ${exit.code}`;
    case "signaled":
      return `ended by ${exit.signal}`;
    case "spawn_failed":
      return `could not be started: ${exit.error.detail}`;
    case "lost":
      return "ended, nobody knows how";
  }
}

/** How and when a run ended, why, and by whom; nobody is to be named for what the kernel killed. */
export function describeEnd(exit: Exit): string {
  const by = exit.cause === "oom" ? "" : ` (${exit.actor})`;
  return `${describeExit(exit)}, ${exit.ended_at}: ${exit.reason}${by}`;
}

/**
 * What a shell would have exited with: the code, or 128 and the signal's number. 1 when nobody knows
 * how it ended, or it never ran.
 */
export function exitCodeOfRun(exit: Exit | undefined): number {
  if (exit?.kind === "exited") return exit.code;
  if (exit?.kind !== "signaled") return 1;
  const number = constants.signals[exit.signal as NodeJS.Signals];
  return number === undefined ? 1 : 128 + number;
}

const seconds = (value: number) => formatDuration(value * 1_000);
const LIMIT_WORDS: Readonly<Record<LimitName, (value: number) => string>> = {
  memory_max: formatSize,
  cpu_max: (percent) => `${percent}%`,
  pids_max: String,
  open_files_max: String,
  run_time_max: seconds,
  idle_max: seconds,
};

/** `memory_max 1GiB (kernel, restart), run_time_max 30m (polling, stop)`; nothing without limits. */
export function describeLimits({ limits }: Pick<Agent, "limits">): string | undefined {
  const words = LIMIT_NAMES.flatMap((name) => {
    const limit = limits?.[name];
    if (!limit) return [];
    const how = [limit.held_by, limit.on_exceed].filter(Boolean).join(", ");
    return [`${name} ${LIMIT_WORDS[name](limit.value)} (${how})`];
  });
  return words.join(", ") || undefined;
}

/** The columns that are shared by tables of agents. */
function columnsOf(nowMs: number) {
  return {
    state: { header: "STATE", value: ({ state }) => state, style: stateStyle },
    health: {
      header: "HEALTH",
      value: healthOf,
      style: ({ health }) => (health === "unhealthy" ? ["red"] : []),
    },
    pid: { header: "PID", value: ({ pid }) => pid?.toString(), align: "right" },
    cpu: { header: "CPU", value: ({ resources: it }) => it && formatPercent(it.cpu_percent), align: "right" },
    memory: {
      header: "MEM",
      value: ({ resources: it }) => it && formatSize(it.memory_bytes),
      align: "right",
    },
    up: {
      header: "UP",
      value: (agent) => (agent.pid === undefined ? undefined : since(agent.started_at, nowMs)),
      align: "right",
    },
    about: { header: "ABOUT", value: (agent) => about(agent, nowMs), flexible: true },
  } satisfies Record<string, Column<Agent>>;
}

/** The columns of `list`. `indent` is what stands before an agent's id. */
export function agentColumns(nowMs: number, indent: (agent: Agent) => string = () => ""): Column<Agent>[] {
  const { state, health, pid, cpu, memory, up, about } = columnsOf(nowMs);
  return [
    { header: "AGENT", value: (agent) => indent(agent) + agent.agent_id, style: () => ["bold"] },
    state,
    health,
    pid,
    cpu,
    memory,
    up,
    { header: "RESTARTS", value: ({ restarts }) => String(restarts), align: "right" },
    { header: "TEMPLATE", value: ({ template_id }) => template_id },
    about,
  ];
}

/** The columns of `top`. */
export function usageColumns(nowMs: number): Column<Agent>[] {
  const { state, pid, cpu, memory, up, about } = columnsOf(nowMs);
  return [
    { header: "AGENT", value: ({ agent_id }) => agent_id, style: () => ["bold"] },
    pid,
    cpu,
    memory,
    { header: "PROCS", value: ({ resources: it }) => it?.processes.toString(), align: "right" },
    { header: "CPU TIME", value: ({ resources: it }) => it && formatDuration(it.cpu_ms), align: "right" },
    up,
    state,
    about,
  ];
}

/** `"3.4%"`, `"250%"`: of one core. */
export function formatPercent(percent: number): string {
  return `${percent < 99.95 ? percent.toFixed(1) : Math.round(percent)}%`;
}

function healthOf({ health, pid }: Agent): string | undefined {
  return pid === undefined || health === "unknown" ? undefined : health;
}

/** The one thing that is worth knowing besides the state. */
function about(agent: Agent, nowMs: number): string | undefined {
  const { state, reason, status, progress, next_start_at } = agent;
  if (state === "running") {
    const percent = progress === undefined ? "" : `${Math.round(progress * 100)}% `;
    return [reason, `${percent}${status ?? ""}`.trim()].filter(Boolean).join("; ") || undefined;
  }
  const leftMs = Date.parse(next_start_at ?? "") - nowMs;
  const next = state === "backoff" && leftMs > 0 ? `starts again in ${formatDuration(leftMs)}` : undefined;
  const words = reason ?? (agent.last_exit && describeExit(agent.last_exit));
  return [words, next].filter(Boolean).join("; ") || undefined;
}
