import { setTimeout as delay } from "node:timers/promises";
import { isOpenStarryError, OpenStarryError } from "../../core/contracts/errors.js";
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
const SAY_WHO_BLOCKS_EVERY_MS = 2_000;
/** Longer than the daemon gives its agents and plugins together. */
const GIVE_UP_MS = 180_000;

/** Stops the daemon and waits until its process is gone. No daemon is no failure. */
export const stop: CommandHandler<{ keepAgents?: boolean; json?: boolean }> = async (invocation) => {
  const { home, options, terminal } = invocation;
  const client = connect(invocation);
  const agents = options.keepAgents ? "keep" : undefined;
  const pid = await stopAndWait(client, home, agents, terminal);
  const kept = agents === "keep" ? "; its agents run on" : "";
  if (options.json) terminal.json({ stopped: pid !== undefined, pid });
  else if (pid === undefined) terminal.print(`No daemon is running on ${home}.`);
  else terminal.print(`The daemon (pid ${pid}) has stopped${kept}.`);
  return undefined;
};

/** Answers the pid of the daemon that is gone now; nothing when there was none. */
async function stopAndWait(
  client: Client,
  home: string,
  agents: "keep" | undefined,
  terminal: Terminal,
): Promise<number | undefined> {
  let gone: number | undefined;
  for (const startedAt = performance.now(); ; await delay(POLL_MS)) {
    // Anew each time: while a daemon is being replaced, it is another one before long.
    const daemon = identify(lockHolder(home) ?? readDaemonInfo(home)?.pid ?? 0);
    if (!daemon) return gone;
    const { answer, pid } = await ask(client, agents);
    if (answer === "absent" && !signalToStop(daemon.pid, home, agents)) return gone;
    if (answer === "later") {
      if (performance.now() - startedAt > GIVE_UP_MS) throw tooLong(daemon.pid, []);
      continue;
    }
    await waitUntilGone(daemon, client, terminal);
    // One that was on its way out already may have made room for a successor.
    if (answer !== "leaving") return (await waitForSuccessors(pid, client, home, terminal)) ?? daemon.pid;
    gone = daemon.pid;
  }
}

/**
 * During a hand-over the successor may have taken the request, or been told by its predecessor. Only one
 * that says itself that it stops is waited for: another may have been started since. Answers the last pid.
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
  /** Of the daemon that accepted. */
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
  // The config leaves out the plugin that takes this: a signal does the same.
  if (error.code === "not_found") return "absent";
  if (error.code !== "daemon_not_running") throw error;
  // A connection that broke was one to a daemon.
  return error.data.reached === true ? "later" : "absent";
}

/** Without an API a signal does the same, to the process that is proven to be the daemon. */
function signalToStop(pid: number, home: string, agents: "keep" | undefined): boolean {
  if (lockHolder(home) !== pid) return false;
  if (agents === "keep") throw withoutApi(pid);
  return process.kill(pid, "SIGTERM");
}

function withoutApi(pid: number): OpenStarryError {
  return new OpenStarryError("slot_empty", {
    detail: `the daemon (pid ${pid}) has no API that answers, so it cannot be told to keep its agents`,
    hint: 'set on_daemon_stop: "keep" in its config, then: openstarry-daemon stop',
  });
}

async function waitUntilGone(daemon: ProcessIdentity, client: Client, terminal: Terminal): Promise<void> {
  const startedAt = performance.now();
  let saidAt = startedAt;
  while (!isGone(daemon)) {
    const now = performance.now();
    if (now - startedAt > GIVE_UP_MS) throw tooLong(daemon.pid, await blockers(client));
    if (now - saidAt > SAY_WHO_BLOCKS_EVERY_MS) {
      saidAt = now;
      const names = await blockers(client);
      terminal.warn(`waiting for ${names.length ? names.join(", ") : "the daemon"}`);
    }
    await delay(POLL_MS);
  }
}

/** The agents that are still on their way out. Nothing when the API is gone already. */
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
    detail: `the daemon (pid ${pid}) is still there${names.length ? `, with ${names.join(", ")}` : ""}`,
    hint: "ask again, or look into daemon.log in its home",
  });
}
