import { allProcesses, environOf, type SeenProcess } from "../../helpers/processes.js";

/** A process of an agent, or its shim. */
export interface Marked extends SeenProcess {
  agentId: string;
  runId: string;
  role: "shim" | "main" | "child";
}

const MARK = "fault-mark";

/**
 * All processes of this home's agents: by their environment, and by the words of their command where they
 * have cleared that.
 */
export function scan(home: string): Marked[] {
  const found: Marked[] = [];
  for (const process of allProcesses()) {
    const env = environOf(process.pid);
    const words = process.command.split(" ");
    const [, markedHome, markedAgent, markedRun] = words.slice(words.indexOf(MARK));
    const byWords = words.includes(MARK) && markedHome === home;
    if (!byWords && env["OPENSTARRY_HOME"] !== home) continue;
    const agentId = env["OPENSTARRY_AGENT_ID"] ?? (byWords ? markedAgent : undefined);
    const runId = env["OPENSTARRY_RUN_ID"] ?? (byWords ? markedRun : undefined);
    if (agentId === undefined || runId === undefined) continue;
    found.push({ ...process, agentId, runId, role: roleOf(process) });
  }
  return found;
}

function roleOf({ pid, session, command }: SeenProcess): Marked["role"] {
  if (command.includes("openstarry-shim")) return "shim";
  return session === pid && command.includes("restless.sh") ? "main" : "child";
}

/** The processes by agent, and within that by run. */
export function byAgent(all: readonly Marked[]): Map<string, Map<string, Marked[]>> {
  const agents = new Map<string, Map<string, Marked[]>>();
  for (const it of all) {
    const runs = agents.get(it.agentId) ?? new Map<string, Marked[]>();
    runs.set(it.runId, [...(runs.get(it.runId) ?? []), it]);
    agents.set(it.agentId, runs);
  }
  return agents;
}

/** Whose trees overlap. A shim alone is no tree: it writes down how the agent has ended. */
function overlapping(all: readonly Marked[]): string[] {
  const trees = byAgent(all.filter(({ role }) => role !== "shim"));
  return [...trees].flatMap(([agentId, runs]) =>
    runs.size > 1 ? [`${agentId} has live trees of ${[...runs.keys()].sort().join(" and ")}`] : [],
  );
}

/** As `overlapping`. A look takes its time, and a run may follow another meanwhile: seen twice, it is true. */
export function doubles(home: string): string[] {
  const first = overlapping(scan(home));
  return first.length === 0 ? [] : overlapping(scan(home)).filter((text) => first.includes(text));
}

/** kill -9. Answers whether it was there. */
export function killIfThere(pid: number): boolean {
  try {
    return process.kill(pid, "SIGKILL");
  } catch {
    // It has ended meanwhile.
    return false;
  }
}
