import { setTimeout as delay } from "node:timers/promises";
import { isOpenStarryError, OpenStarryError } from "../../core/contracts/errors.js";
import { formatDuration } from "../../core/lib/units.js";
import type { Client } from "../../plugins/agent-manager-tool/client/client.js";
import { since } from "../agent-view.js";
import { allAgents } from "../all-agents.js";
import { connect } from "../context.js";
import { readDaemonInfo } from "../daemon/daemon-info.js";
import { lockHolder } from "../daemon/lock.js";
import { identify, isGone, type ProcessIdentity } from "../daemon/process-identity.js";
import type { CommandHandler } from "../invocation.js";
import type { Terminal } from "../output.js";

const POLL_MS = 20;
const REPORT_EVERY_MS = 2_000;
/** Longer than the daemon waits for its agents and plugins together. */
const GIVE_UP_MS = 180_000;

/** Stops the daemon and waits until it has exited. It is no error if none is running. */
export const stop: CommandHandler<{ keepAgents?: boolean; json?: boolean }> = async (invocation) => {
  const { home, options, terminal } = invocation;
  const client = connect(invocation);
  const agents = options.keepAgents ? "keep" : undefined;
  const pid = await stopAndWait(client, home, agents, terminal);
  const kept = agents === "keep" ? "; agents keep running" : "";
  if (options.json) terminal.json({ stopped: pid !== undefined, pid });
  else if (pid === undefined) terminal.print(`No daemon is running on ${home}.`);
  else terminal.print(`The daemon (pid ${pid}) has stopped${kept}.`);
  return undefined;
};

/** Answers the pid of the daemon that has exited; `undefined` if none was running. */
async function stopAndWait(
  client: Client,
  home: string,
  agents: "keep" | undefined,
  terminal: Terminal,
): Promise<number | undefined> {
  let gone: number | undefined;
  for (const startedAt = performance.now(); ; await delay(POLL_MS)) {
    // Looked up again each time: during a restart it may be the successor by now.
    const daemon = identify(lockHolder(home) ?? readDaemonInfo(home)?.pid ?? 0);
    if (!daemon) return gone;
    const { answer, pid } = await ask(client, agents);
    if (answer === "absent" && !signalToStop(daemon.pid, home, agents)) return gone;
    if (answer === "later") {
      if (performance.now() - startedAt > GIVE_UP_MS) throw tooLong(daemon.pid, []);
      continue;
    }
    await waitUntilGone(daemon, client, terminal);
    // A daemon that was already leaving may have a successor.
    if (answer !== "leaving") return (await waitForSuccessors(pid, client, home, terminal)) ?? daemon.pid;
    gone = daemon.pid;
  }
}

/**
 * Waits for successors that stop as well: during a hand-over the successor may have received the request, directly or
 * from its predecessor. Only a daemon that reports that it is stopping is waited for: another one may have been started
 * since. Answers the last pid.
 */
async function waitForSuccessors(
  answered: number | undefined,
  client: Client,
  home: string,
  terminal: Terminal,
): Promise<number | undefined> {
  let gone = answered;
  let next = answered === undefined ? undefined : identify(answered);
  for (next ??= await stoppingDaemon(client, home); next; next = await stoppingDaemon(client, home)) {
    await waitUntilGone(next, client, terminal);
    gone = next.pid;
  }
  return gone;
}

async function stoppingDaemon(client: Client, home: string): Promise<ProcessIdentity | undefined> {
  const holder = lockHolder(home);
  if (holder === undefined) return undefined;
  const status = await client.daemon.status().catch(() => undefined);
  return status?.state === "stopping" && status.pid === holder ? identify(holder) : undefined;
}

interface StopAnswer {
  answer: "accepted" | "leaving" | "later" | "absent";
  /** The daemon that accepted. */
  pid?: number;
}

async function ask(client: Client, agents: "keep" | undefined): Promise<StopAnswer> {
  try {
    const { pid } = await client.daemon.stop(agents ? { agents } : {});
    return { answer: "accepted", pid };
  } catch (error) {
    return { answer: meaningOf(error) };
  }
}

function meaningOf(error: unknown): StopAnswer["answer"] {
  if (!isOpenStarryError(error)) throw error;
  if (error.code === "daemon_stopping") return "leaving";
  if (error.code === "daemon_busy") return "later";
  // The config disables the plugin for this: a signal does the same.
  if (error.code === "not_found") return "absent";
  if (error.code !== "daemon_not_running") throw error;
  // A connection that broke proves that a daemon was there.
  return error.data.reached === true ? "later" : "absent";
}

/** Stops a daemon without an API by a signal, if the process is proven to be the daemon. */
function signalToStop(pid: number, home: string, agents: "keep" | undefined): boolean {
  if (lockHolder(home) !== pid) return false;
  if (agents === "keep") throw withoutApi(pid);
  return process.kill(pid, "SIGTERM");
}

function withoutApi(pid: number): OpenStarryError {
  return new OpenStarryError("slot_empty", {
    detail: `cannot keep the agents: the API of the daemon (pid ${pid}) does not respond`,
    hint: 'set on_daemon_stop: "keep" in the config, then run: openstarry-daemon stop',
  });
}

async function waitUntilGone(daemon: ProcessIdentity, client: Client, terminal: Terminal): Promise<void> {
  const startedAt = performance.now();
  let reportedAt = startedAt;
  while (!isGone(daemon)) {
    const now = performance.now();
    if (now - startedAt > GIVE_UP_MS) throw tooLong(daemon.pid, await blockers(client));
    if (now - reportedAt > REPORT_EVERY_MS) {
      reportedAt = now;
      const names = await blockers(client);
      terminal.warn(`waiting for ${names.length ? names.join(", ") : "the daemon"}`);
    }
    await delay(POLL_MS);
  }
}

/** Lists the agents that are still stopping; empty when the API is gone already. */
async function blockers(client: Client): Promise<string[]> {
  try {
    const left = (await allAgents(client)).filter(({ pid }) => pid !== undefined);
    return left.slice(0, 10).map(({ agent_id, state, started_at }) => {
      const up = since(started_at, Date.now());
      return `${agent_id} (${state}${up === undefined ? "" : `, up ${up}`})`;
    });
  } catch {
    return [];
  }
}

function tooLong(pid: number, names: readonly string[]): OpenStarryError {
  return new OpenStarryError("timeout", {
    detail: `timed out after ${formatDuration(GIVE_UP_MS)}: the daemon (pid ${pid}) is still running${names.length ? `, with ${names.join(", ")}` : ""}`,
    hint: "run stop again, or check daemon.log in its home",
  });
}
