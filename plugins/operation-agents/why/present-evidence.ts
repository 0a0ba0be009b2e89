import { formatDuration, formatSize, LIMIT_NAMES, type Limit, type LimitName } from "../../../core/index.js";
import type { Evidence } from "./evidence.js";
import type { WhyFacts } from "./facts.js";
import { stateInWords } from "./in-words.js";

/** Lists the current facts: what the agent waits for, its probes, limits, restarts and parent. Pure. */
export function presentEvidence(facts: WhyFacts): Evidence[] {
  const { restartsUsed, unread } = facts;
  return [
    ...waitingEvidence(facts),
    ...survivorEvidence(facts),
    ...probeEvidence(facts),
    ...limitEvidence(facts),
    ...one("restarts", restartsUsed && `used so far: ${restartsUsed}`),
    ...parentEvidence(facts),
    ...one("journal", unread),
  ];
}

function one(kind: Evidence["kind"], text: string | undefined): Evidence[] {
  return text === undefined ? [] : [{ kind, text }];
}

function waitingEvidence({ agent, held, needs }: WhyFacts): Evidence[] {
  if (agent.state !== "pending") return [];
  const missing = needs.flatMap(({ name, problem }) => one("requirement", `${name} ${problem}`));
  if (held) return [{ kind: "hold", text: held.reason, actor: held.by }, ...missing];
  if (missing.length > 0 || agent.next_start_at === undefined) return missing;
  return one("deferral", agent.reason ?? "its start was deferred");
}

function survivorEvidence({ survivors }: WhyFacts): Evidence[] {
  if (survivors.length === 0) return [];
  const names = survivors.map(({ pid, name }) => `${name} (pid ${pid})`).join(", ");
  return one("survivors", `could not be killed: ${names}`);
}

/** What its probes report now. How former runs ended says what they reported then. */
function probeEvidence({ agent, template }: WhyFacts): Evidence[] {
  if (agent.state === "starting" && template?.readiness) {
    const { type, timeoutMs } = template.readiness;
    const saw = agent.reason === undefined ? "has not reported yet" : `last reported: ${agent.reason}`;
    return one("readiness", `probe ${type} (timeout ${formatDuration(timeoutMs)}) ${saw}`);
  }
  if (agent.state !== "running" || !template?.liveness) return [];
  const says = agent.health === "unknown" ? "has not reported yet" : `reports ${agent.health}`;
  return one("liveness", `probe ${template.liveness.type} ${says}`);
}

const seconds = (value: number) => formatDuration(value * 1_000);
const VALUES: Readonly<Record<LimitName, (value: number) => string>> = {
  memory_max: formatSize,
  cpu_max: (percent) => `${percent}% of one core`,
  pids_max: String,
  open_files_max: String,
  run_time_max: seconds,
  idle_max: seconds,
};

function limitEvidence({ agent }: WhyFacts): Evidence[] {
  return LIMIT_NAMES.flatMap((name) => {
    const limit = agent.limits?.[name];
    return one("limit", limit && limitInWords(name, limit, agent.resources));
  });
}

/** Words a limit, what enforces it, and the current usage. */
function limitInWords(
  name: LimitName,
  { value, held_by, on_exceed }: Limit,
  uses: WhyFacts["agent"]["resources"],
): string {
  const enforced = held_by === "kernel" ? "by the operating system" : "by polling";
  const action = on_exceed === undefined ? "" : ` (action: ${on_exceed})`;
  const measured: Partial<Record<LimitName, string>> = uses
    ? {
        memory_max: formatSize(uses.memory_bytes),
        cpu_max: `${Math.round(uses.cpu_percent)}%`,
        pids_max: String(uses.processes),
      }
    : {};
  const now = measured[name] === undefined ? "" : `; currently ${measured[name]}`;
  return `${name} ${VALUES[name](value)}, enforced ${enforced}${action}${now}`;
}

function parentEvidence({ parent, agent }: WhyFacts): Evidence[] {
  if (!parent || agent.last_exit?.cause !== "parent_exit") return [];
  const because = parent.reason === undefined ? "" : `: ${parent.reason}`;
  return one("parent", `parent ${parent.agent_id} ${stateInWords(parent.state)}${because}`);
}
