import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** A process as `/proc` shows it: read here anew, by nothing of what is being tested. */
export interface SeenProcess {
  pid: number;
  ppid: number;
  session: number;
  /** `T` is stopped. Zombies are not seen. */
  state: string;
  /** Its words, joined by spaces. */
  command: string;
}

/** `undefined` when there is none, or only a zombie. */
export function seeProcess(pid: number): SeenProcess | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const [state = "", ppid, , session] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const command = readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0").join(" ").trim();
    return /[ZX]/.test(state)
      ? undefined
      : { pid, ppid: Number(ppid), session: Number(session), state, command };
  } catch {
    // It ended, perhaps between the two looks.
    return undefined;
  }
}

/** What a process was given to begin with. Empty when it is gone. */
export function environOf(pid: number): Record<string, string> {
  try {
    const entries = readFileSync(`/proc/${pid}/environ`, "utf8").split("\0").filter(Boolean);
    return Object.fromEntries(
      entries.map((entry) => [entry.slice(0, entry.indexOf("=")), entry.slice(entry.indexOf("=") + 1)]),
    );
  } catch {
    return {};
  }
}

/** The user that a process runs as. */
export function uidOf(pid: number): number {
  return Number(/^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1]);
}

export function cwdOf(pid: number): string {
  return readlinkSync(`/proc/${pid}/cwd`);
}

export function allProcesses(): SeenProcess[] {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return pids.flatMap((pid) => seeProcess(Number(pid)) ?? []);
}

/** The daemon of this home, its shims, its agents and all that they have started. */
export function processesOf(home: string): SeenProcess[] {
  return allProcesses().filter(
    ({ pid, command }) =>
      environOf(pid)["OPENSTARRY_HOME"] === home ||
      (pid !== process.pid && command.includes(`--home ${home}`)),
  );
}

/** Those of one agent, its shim among them. */
export function processesOfAgent(home: string, agentId: string): SeenProcess[] {
  return processesOf(home).filter(({ pid }) => environOf(pid)["OPENSTARRY_AGENT_ID"] === agentId);
}

/** What its descriptors lead to, in their order. */
export function openFilesOf(pid: number): string[] {
  const numbers = readdirSync(`/proc/${pid}/fd`).map(Number);
  return numbers.sort((a, b) => a - b).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
}
