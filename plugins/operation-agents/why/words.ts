import { formatDuration, rfc3339 } from "../../../core/index.js";
import { actorInWords, enderInWords, exitInWords } from "./exit-words.js";
import type { WhyFacts } from "./facts.js";
import { underWay } from "./under-way.js";

/** What is the case and how it came about, in one paragraph. Pure, as everything here. */
export function summaryOf(facts: WhyFacts): string {
  const { agent, runs, host, ending } = facts;
  const sentences = [stateSentence(facts)];
  if (host !== undefined) sentences.push(`It is a service of ${host}.`);
  if (agent.desired === "stopped" && agent.pid !== undefined) sentences.push("It is wanted stopped.");
  if (ending && agent.state === "stopping") sentences.push(`Why: ${enderInWords(ending)}.`);
  if (agent.health === "unhealthy") sentences.push("It is not healthy.");
  if (agent.throttle) {
    const { percent, actor, reason } = agent.throttle;
    sentences.push(`Its CPU is slowed down to ${percent}% of a core by ${actorInWords(actor)}: ${reason}.`);
  }
  if (agent.status !== undefined) sentences.push(`Its own last words: ${quoted(agent.status)}.`);
  sentences.push(...lastRunSentence(facts));
  const failures = runs.filter(({ exit: { success } }) => !success).length;
  if (failures > 1) sentences.push(`Of its last ${runs.length} runs ${failures} failed.`);
  if (agent.restarts > 0) sentences.push(`It was restarted automatically ${times(agent.restarts)}.`);
  return sentences.join(" ");
}

function stateSentence({ agent, nowMs }: WhyFacts): string {
  const { agent_id: id, reason } = agent;
  const because = reason === undefined ? "" : `: ${reason}`;
  const since =
    agent.started_at === undefined
      ? "some time"
      : formatDuration(Math.max(0, nowMs - Date.parse(agent.started_at)));
  switch (agent.state) {
    case "pending":
      return `${id} waits to be started${because.replace(/^: waits:? /, ": ") || ", and its start is under way"}.`;
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

function lastRunSentence({ agent: { last_exit: exit }, nowMs }: WhyFacts): string[] {
  if (!exit) return [];
  const ago = formatDuration(Math.max(0, nowMs - Date.parse(exit.ended_at)));
  const livedMs = Date.parse(exit.ended_at) - Date.parse(exit.started_at ?? "");
  const after = livedMs >= 0 ? `, after ${formatDuration(livedMs)}` : "";
  const how = exitInWords(exit);
  if (exit.kind === "spawn_failed") return [`Its last start, ${ago} ago, failed: it ${how}.`];
  return [`Its last run ended ${ago} ago${after}: ${enderInWords(exit)} (${how}).`];
}

/** What will happen by itself, and when. */
export function nextFor(facts: WhyFacts): string {
  const { agent, nowMs } = facts;
  switch (agent.state) {
    case "pending":
      return nextOfPending(facts);
    case "starting":
      return `it becomes running once it says that it is ready${readinessLimit(facts)}`;
    case "running":
      return nextOfRunning(facts);
    case "stopping":
      return nextOfStopping(facts);
    case "backoff":
      return agent.next_start_at === undefined
        ? "it is started again"
        : `it is started again at ${moment(agent.next_start_at, nowMs)}`;
    case "stopped":
      if (agent.desired === "running") return "it is started again when the daemon is started again";
      return nothing(facts);
    case "exited":
    case "failed":
      return nothing(facts);
  }
}

function nextOfPending({ agent, held, needs, nowMs }: WhyFacts): string {
  if (held) return `it is started once ${actorInWords(held.by)} releases it`;
  if (needs.length > 0) {
    const names = needs.map(({ name, agentId }) => (agentId === undefined ? name : `agent ${agentId}`));
    const all =
      names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)} are` : `${names[0]} is`;
    const hopeless = needs.some((need) => need.hopeless) ? "; that does not come about by itself" : "";
    return `it is started as soon as ${all} ${names.some((it) => it.startsWith("agent ")) ? "running" : "there"}${hopeless}`;
  }
  if (agent.next_start_at !== undefined)
    return `its start is tried again at ${moment(agent.next_start_at, nowMs)}`;
  return agent.reason === undefined
    ? "its process is started now"
    : "it is started as soon as what it waits for is there";
}

function nextOfRunning(facts: WhyFacts): string {
  const { agent, template, nowMs } = facts;
  if (agent.desired === "stopped") return "it is ended now";
  const coming = underWay(facts);
  if (coming) return `${coming.deed} at ${moment(coming.at, nowMs)}, ${coming.rest}`;
  const time = agent.limits?.run_time_max;
  const { policy, max_restarts: max, periodMs } = template?.restart ?? {};
  const rules =
    policy === undefined || policy === "never"
      ? "its restart rules decide"
      : `its restart rules decide (${policy}, at most ${max} ${max === 1 ? "restart" : "restarts"} within ${formatDuration(periodMs ?? 0)})`;
  const then = policy === "never" ? "it is not started again" : rules;
  if (!time || agent.started_at === undefined) return `it runs on; if it ends, ${then}`;
  const end = rfc3339(Date.parse(agent.started_at) + time.value * 1_000);
  return `it may run until ${moment(end, nowMs)}, its run_time_max; if it ends, ${then}`;
}

function nextOfStopping(facts: WhyFacts): string {
  const { agent, ending, deleting, survivors } = facts;
  const first = survivors.length > 0 ? "the daemon goes on trying; " : "";
  return `${first}once all its processes are gone ${after()}${first === "" ? stopLimit(facts) : ""}`;

  function after(): string {
    if (deleting) return "its record is forgotten";
    if (agent.desired === "stopped") return "it is stopped";
    if (ending?.cause === "daemon_stop") return "it rests until the daemon is started again";
    if (ending && ["policy", "unhealthy", "start_timeout"].includes(ending.cause))
      return "its restart rules decide";
    return "it is started again";
  }
}

function readinessLimit({ agent, template, nowMs }: WhyFacts): string {
  const timeoutMs = template?.readiness?.timeoutMs;
  if (timeoutMs === undefined || agent.started_at === undefined) return "";
  const leftMs = Date.parse(agent.started_at) + timeoutMs - nowMs;
  const left = leftMs > 0 ? `${formatDuration(leftMs)} left` : "it has got more time than that";
  return `; after ${formatDuration(timeoutMs)} without that it is ended (${left})`;
}

function stopLimit({ template, events, agent }: WhyFacts): string {
  if (!template) return "";
  const { signal, graceMs } = template.stop;
  const began = events.findLast(
    ({ type, data, run_id }) =>
      type === "agent.state" && data["to"] === "stopping" && run_id === agent.run_id,
  );
  const when = began ? `at ${rfc3339(Date.parse(began.at) + graceMs)} at the latest` : "when that is over";
  return `; it was sent ${signal}, and is killed ${when} (its grace is ${formatDuration(graceMs)} by its template)`;
}

function nothing({ agent, template, host }: WhyFacts): string {
  const first = host === undefined ? "nothing until somebody starts it" : `nothing until ${host} asks for it`;
  if (template?.removeAfterMs === undefined) return first;
  const ended = Date.parse(agent.last_exit?.ended_at ?? agent.created_at);
  return `${first}; its record is forgotten at ${rfc3339(ended + template.removeAfterMs)}`;
}

/** A time, and how long it is till then. */
function moment(time: string, nowMs: number): string {
  const left = Date.parse(time) - nowMs;
  return `${time} (${left > 0 ? `in ${formatDuration(left)}` : "now"})`;
}

function times(count: number): string {
  return count === 1 ? "once" : `${count} times`;
}

function quoted(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}
