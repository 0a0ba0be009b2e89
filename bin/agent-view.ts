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

export function paintState(terminal: Terminal, state: string, text = state): string {
  return terminal.style(neutralise(text), ...(STATE_STYLES[state as AgentState] ?? []));
}

/** Formats the time from then to now in whole seconds: `"3m 2s"`; `undefined` for an invalid time. */
export function since(time: string | undefined, nowMs: number): string | undefined {
  const seconds = Math.floor((nowMs - Date.parse(time ?? "")) / 1_000);
  if (Number.isNaN(seconds)) return undefined;
  return seconds <= 0 ? "0s" : formatDuration(seconds * 1_000);
}

/** Says how a run ended: `exited with code 1`, `killed by SIGKILL`. */
export function describeExit(exit: ExitStatus): string {
  switch (exit.kind) {
    case "exited":
      return `exited with code ${exit.code}`;
    case "signaled":
      return `killed by ${exit.signal}`;
    case "spawn_failed":
      return `could not be started: ${exit.error.detail}`;
    case "lost":
      return "ended (exit status unknown)";
  }
}

/** Says how and when a run ended, why, and who ended it; the OOM killer of the kernel is no actor. */
export function describeEnd(exit: Exit): string {
  const by = exit.cause === "oom" ? "" : ` (${exit.actor})`;
  return `${describeExit(exit)}, ${exit.ended_at}: ${exit.reason}${by}`;
}

/**
 * Answers what a shell would have exited with: the code, or 128 plus the signal's number; 1 when the exit status is
 * unknown or the agent never ran.
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

/** Lists limits: `memory_max 1GiB (kernel, restart), run_time_max 30m (polling, stop)`; `undefined` without any. */
export function describeLimits({ limits }: Pick<Agent, "limits">): string | undefined {
  const words = LIMIT_NAMES.flatMap((name) => {
    const limit = limits?.[name];
    if (!limit) return [];
    const how = [limit.held_by, limit.on_exceed].filter(Boolean).join(", ");
    return [`${name} ${LIMIT_WORDS[name](limit.value)} (${how})`];
  });
  return words.join(", ") || undefined;
}

/** Makes the columns that the tables of agents share. */
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

/** Makes the columns of `list`. `indent` is put before an agent's ID. */
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

/** Makes the columns of `top`. */
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

/** Formats percent of one core: `"3.4%"`, `"250%"`. */
export function formatPercent(percent: number): string {
  return `${percent < 99.95 ? percent.toFixed(1) : Math.round(percent)}%`;
}

function healthOf({ health, pid }: Agent): string | undefined {
  return pid === undefined || health === "unknown" ? undefined : health;
}

/** Picks the most useful fact besides the state. */
function about(agent: Agent, nowMs: number): string | undefined {
  const { state, reason, status, progress, next_start_at } = agent;
  if (state === "running") {
    const percent = progress === undefined ? "" : `${Math.round(progress * 100)}% `;
    return [reason, `${percent}${status ?? ""}`.trim()].filter(Boolean).join("; ") || undefined;
  }
  const leftMs = Date.parse(next_start_at ?? "") - nowMs;
  const next = state === "backoff" && leftMs > 0 ? `restarts in ${formatDuration(leftMs)}` : undefined;
  const words = reason ?? (agent.last_exit && describeExit(agent.last_exit));
  return [words, next].filter(Boolean).join("; ") || undefined;
}
