import { type Agent, formatDuration, type RunRecord, type Template } from "../../core/index.js";
import { exitInWords } from "./exit-words.js";

/** What is the case and how it came about, in one paragraph. Pure, as everything here. */
export function summaryOf(agent: Agent, runs: readonly RunRecord[], nowMs: number): string {
  const sentences = [stateSentence(agent, nowMs)];
  if (agent.desired === "stopped" && agent.pid !== undefined) sentences.push("It is wanted stopped.");
  if (agent.health === "unhealthy") sentences.push("It is not healthy.");
  if (agent.status !== undefined) sentences.push(`Its own last words: ${quoted(agent.status)}.`);
  const { last_exit: exit } = agent;
  if (exit) {
    const ago = formatDuration(Math.max(0, nowMs - Date.parse(exit.ended_at)));
    const by = exit.actor === `agent:${agent.agent_id}` ? "" : `, by ${exit.actor}`;
    sentences.push(`Its last run ended ${ago} ago (${exitInWords(exit)}; cause ${exit.cause}${by}).`);
  }
  const failures = runs.filter(({ exit: { success } }) => !success).length;
  if (failures > 1) sentences.push(`Of its last ${runs.length} runs ${failures} failed.`);
  if (agent.restarts > 0) sentences.push(`It was restarted automatically ${times(agent.restarts)}.`);
  return sentences.join(" ");
}

function stateSentence(agent: Agent, nowMs: number): string {
  const { agent_id: id, reason } = agent;
  const because = reason === undefined ? "" : `: ${reason}`;
  const since =
    agent.started_at === undefined
      ? "some time"
      : formatDuration(Math.max(0, nowMs - Date.parse(agent.started_at)));
  switch (agent.state) {
    case "pending":
      return `${id} waits to be started${because || ", and its start is under way"}.`;
    case "starting":
      return `${id} was started ${since} ago as process ${agent.pid} and is not ready yet${because}.`;
    case "running":
      return `${id} has been running for ${since} as process ${agent.pid}${because}.`;
    case "stopping":
      return `${id} is being ended${because}.`;
    case "backoff":
      return `${id} has ended and waits before it is started again${because}.`;
    case "stopped":
      return `${id} is stopped${because || ", as it was asked to be"}.`;
    case "exited":
      return `${id} has ended by itself and is not started again${because}.`;
    case "failed":
      return `${id} has failed and was given up${because}.`;
  }
}

/** What will happen by itself, and when. */
export function nextFor(agent: Agent, template: Template | undefined, nowMs: number): string {
  switch (agent.state) {
    case "pending":
      return agent.reason === undefined
        ? "its process is started now"
        : "it is started as soon as what it waits for is there";
    case "starting":
      return `it becomes running once it says that it is ready${readinessLimit(agent, template, nowMs)}`;
    case "running":
      return agent.desired === "running"
        ? "it runs on; if it ends, its restart rules decide"
        : "it is ended now";
    case "stopping":
      return agent.desired === "running"
        ? "it is started again once all its processes are gone"
        : `once all its processes are gone it is stopped${stopLimit(template)}`;
    case "backoff": {
      if (agent.next_start_at === undefined) return "it is started again";
      const left = Date.parse(agent.next_start_at) - nowMs;
      return `it is started again at ${agent.next_start_at} (${left > 0 ? `in ${formatDuration(left)}` : "now"})`;
    }
    case "stopped":
    case "exited":
    case "failed":
      return `nothing until somebody starts it${removal(agent, template)}`;
  }
}

function readinessLimit(agent: Agent, template: Template | undefined, nowMs: number): string {
  const timeoutMs = template?.readiness?.timeoutMs;
  if (timeoutMs === undefined || agent.started_at === undefined) return "";
  const left = Date.parse(agent.started_at) + timeoutMs - nowMs;
  return `; after ${formatDuration(timeoutMs)} without that it is ended (${formatDuration(Math.max(0, left))} left)`;
}

function stopLimit(template: Template | undefined): string {
  if (!template) return "";
  const { signal, graceMs } = template.stop;
  return `; it was sent ${signal}, and is killed when its grace (${formatDuration(graceMs)} by its template) is over`;
}

function removal(agent: Agent, template: Template | undefined): string {
  if (template?.removeAfterMs === undefined) return "";
  const ended = Date.parse(agent.last_exit?.ended_at ?? agent.created_at);
  return `; its record is forgotten at ${new Date(ended + template.removeAfterMs).toISOString()}`;
}

/** What to do, if anything. */
export function hintFor(agent: Agent, runs: readonly RunRecord[]): string {
  const id = agent.agent_id;
  const { last_exit: exit } = agent;
  switch (agent.state) {
    case "pending":
      return "wait, or see to what it waits for; DELETE it if it is no longer wanted";
    case "starting":
      return `wait with GET /agents/${id}?wait_for=ready, and look at what it prints: GET /agents/${id}/logs`;
    case "running":
      return agent.health === "unhealthy"
        ? `look at what it prints: GET /agents/${id}/logs; or restart it: POST /agents/${id}/restart`
        : "nothing has to be done";
    case "stopping":
      return `wait; DELETE /agents/${id}?force=true ends it without further grace`;
    case "backoff":
      return `read the output of the run that failed: GET /agents/${id}/logs; POST /agents/${id}/start does not wait`;
    case "stopped":
      return `start it with POST /agents/${id}/start, or forget it with DELETE /agents/${id}`;
    case "exited":
      return exit?.success && runs[0]?.result !== undefined
        ? `its result: GET /agents/${id}/result; then DELETE /agents/${id}`
        : `its output: GET /agents/${id}/logs; start it again with POST /agents/${id}/start`;
    case "failed":
      return exit?.kind === "spawn_failed"
        ? `put right what kept it from starting, then POST /agents/${id}/start; or DELETE /agents/${id}`
        : `read its output (GET /agents/${id}/logs), put right what makes it fail, then POST /agents/${id}/start; or DELETE /agents/${id}`;
  }
}

function times(count: number): string {
  return count === 1 ? "once" : `${count} times`;
}

function quoted(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}
