import { formatDuration } from "../../../core/index.js";
import type { WhyFacts } from "./facts.js";
import { actorInWords, enderInWords, exitInWords } from "./in-words.js";

/** Says in one paragraph what the state is and how it came about. Pure. */
export function summaryOf(facts: WhyFacts): string {
  const { agent, runs, host, ending } = facts;
  const sentences = [stateSentence(facts)];
  if (host !== undefined) sentences.push(`It is a service of ${host}.`);
  if (agent.desired === "stopped" && agent.pid !== undefined) sentences.push("Its desired state is stopped.");
  if (ending && agent.state === "stopping") sentences.push(`Cause: ${enderInWords(ending)}.`);
  if (agent.health === "unhealthy") sentences.push("It is unhealthy.");
  if (agent.throttle) {
    const { percent, actor, reason } = agent.throttle;
    sentences.push(`Its CPU is throttled to ${percent}% of one core by ${actorInWords(actor)}: ${reason}.`);
  }
  if (agent.status !== undefined) sentences.push(`Last reported status: ${quoted(agent.status)}.`);
  sentences.push(...lastRunSentence(facts));
  const failures = runs.filter(({ exit: { success } }) => !success).length;
  if (failures > 1) sentences.push(`${failures} of its last ${runs.length} runs failed.`);
  if (agent.restarts > 0) sentences.push(`It was restarted automatically ${times(agent.restarts)}.`);
  return sentences.join(" ");
}

function stateSentence({ agent, nowMs }: WhyFacts): string {
  const { agent_id: id, reason, pid } = agent;
  const because = reason === undefined ? "" : `: ${reason}`;
  switch (agent.state) {
    case "pending":
      return pendingSentence(id, reason);
    case "starting":
      return `${id} was started ${age(agent.started_at, nowMs)} ago (pid ${pid}) and is not ready yet${because}.`;
    case "running":
      return `${id} has been running for ${age(agent.started_at, nowMs)} (pid ${pid})${because}.`;
    case "stopping":
      return `${id} is stopping${because}.`;
    case "backoff":
      return `${id} has ended and is backing off before its next start${because}.`;
    case "stopped":
      return `${id} is stopped${because || ", as requested"}.`;
    case "exited":
      return `${id} has exited and will not be restarted${because}.`;
    case "failed":
      return `${id} has failed and will not be restarted${because}.`;
  }
}

/** Reasons of a wait may say themselves that they are one. */
function pendingSentence(id: string, reason: string | undefined): string {
  if (reason === undefined) return `${id} is about to be started.`;
  if (reason.startsWith("waits for ")) return `${id} is waiting for ${reason.slice("waits for ".length)}.`;
  return `${id} is waiting to start: ${reason.replace(/^waits: /, "")}.`;
}

function lastRunSentence({ agent: { last_exit: exit, reason }, nowMs }: WhyFacts): string[] {
  if (!exit) return [];
  const ago = age(exit.ended_at, nowMs);
  if (exit.kind === "spawn_failed") {
    // The state's own reason usually is the same text.
    const { detail, code } = exit.error;
    return [`Its last start failed ${ago} ago${reason?.includes(detail) ? "" : `: ${detail}`} (${code}).`];
  }
  const livedMs = Date.parse(exit.ended_at) - Date.parse(exit.started_at ?? "");
  const after = livedMs >= 0 ? `, after ${formatDuration(livedMs)}` : "";
  return [`Its last run ended ${ago} ago${after}: ${enderInWords(exit)} (${exitInWords(exit)}).`];
}

function age(time: string | undefined, nowMs: number): string {
  return time === undefined ? "some time" : formatDuration(Math.max(0, nowMs - Date.parse(time)));
}

function times(count: number): string {
  return count === 1 ? "once" : `${count} times`;
}

function quoted(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}
