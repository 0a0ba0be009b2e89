import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Agent, DaemonEvent } from "../../../core/index.js";
import type { Operator } from "../../helpers/operator.js";
import { compare, journaledAgents, journaledEvents } from "./compare.js";
import type { Follower } from "./follower.js";
import { linesOf } from "./history.js";
import { doubles, scan } from "./scan.js";
import { complain, until } from "./until.js";
import type { World } from "./world.js";

/**
 * The daemon becomes what was acknowledged; then all that can be known at that moment is right. Nobody ends
 * by himself meanwhile: what there is cannot be looked at in an instant.
 */
export async function verify(world: World): Promise<void> {
  const hold = join(world.evidence, "hold");
  writeFileSync(hold, "");
  await verifyHeld(world);
  rmSync(hold);
}

async function verifyHeld(world: World): Promise<void> {
  const { home, operator, model, history, follower, evidence, lines, kinds } = world;
  let agents: Agent[] = [];
  let begun: string[] = [];
  await until(async () => {
    begun = history.begun();
    agents = await agentsNow(operator, follower);
    history.take(follower.events);
    complain("by what happened", [...history.complaints, ...follower.complaints]);
    const seen = { api: agents, journal: journaledAgents(home), processes: scan(home) };
    return compare(seen, model, history);
  });
  complain("by their processes", doubles(home));
  const live = new Set(agents.flatMap(({ run_id, pid }) => (pid && run_id ? [run_id] : [])));
  complain("by the agents' own evidence", [
    ...linesOf(join(evidence, "overlaps")).map((line) => `two trees of one agent were alive: ${line}`),
    ...history.unaccounted(begun, live),
  ]);
  const printed = agents.map((agent) => lines.check(operator, agent.agent_id, agent.created_at));
  complain("by what was printed", (await Promise.all(printed)).flat());
  complain("by the stream of events", streamAgainst(home, follower.events.slice(world.told)));
  world.told = follower.events.length;
  complain("by the answers", model.complaints);
  model.learn(agents, (agent) => kinds.find(({ template_id }) => template_id === agent.template_id));
}

/** The agents, at a moment after which the stream of events has told of all that had happened before it. */
async function agentsNow(operator: Operator, follower: Follower): Promise<Agent[]> {
  const { json } = await operator.get("/agents?limit=1000");
  const { json: status } = await operator.get("/daemon");
  const newest = Number(status["last_event_id"]);
  await until(() => {
    const told = follower.events.at(-1)?.id ?? 0;
    return told >= newest ? [] : [`the stream has told of event ${told}, and there are ${newest}`];
  });
  return json["items"] as Agent[];
}

/** The stream tells what the journal holds. */
function streamAgainst(home: string, told: readonly DaemonEvent[]): string[] {
  const [first] = told;
  if (!first) return [];
  const durable = new Map(
    journaledEvents(home, first.id - 1).map((event) => [event.id, JSON.stringify(event)]),
  );
  return told.flatMap((event) =>
    durable.get(event.id) === JSON.stringify(event)
      ? []
      : [`it told ${JSON.stringify(event)}; the journal has ${durable.get(event.id)}`],
  );
}
