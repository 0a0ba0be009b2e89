import { cpSync, mkdirSync, mkdtempSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Agent, DaemonEvent } from "../../../core/index.js";
import { startDaemon, type TestDaemon } from "../../helpers/daemon.js";
import { type Operator, operatorOf } from "../../helpers/operator.js";
import { processesOf } from "../../helpers/processes.js";
import { drawActions, killSomebody, perform, type Stage } from "./actions.js";
import { compare, journaledAgents, journaledEvents } from "./compare.js";
import { createDice, type Dice } from "./dice.js";
import { createFollower, type Follower } from "./follower.js";
import { createHistory, type History, linesOf } from "./history.js";
import { type Kind, kindsWith, templateOf } from "./kinds.js";
import { createLineCheck, type LineCheck } from "./lines.js";
import { createModel } from "./model.js";
import { doubles, scan } from "./scan.js";

export interface PlayOptions {
  rounds: number;
  seed: number;
  /** Told of every round, when it is over. */
  progress?: (text: string) => void;
}

export interface Played {
  agents: number;
  exits: number;
  lines: number;
  events: number;
}

const AGENTS = 10;
/** Within which requests are made, and the daemon is killed. */
const SPAN_MS = 500;
/** For a daemon to have become what was acknowledged, on a machine that has other work to do. */
const PATIENCE_MS = 20_000;
const PAUSE_MS = 25;

interface World extends Stage {
  daemon: TestDaemon;
  evidence: string;
  dice: Dice;
  kinds: readonly Kind[];
  follower: Follower;
  history: History;
  lines: LineCheck;
  report: string[];
}

/**
 * Kills a daemon at random points under a random mix of requests and mishaps, starts it again, and holds
 * what there is against what was acknowledged, round after round. Throws when something differs, with the
 * seed, the round and what was done in it; the folder is kept then.
 */
export async function play(options: PlayOptions): Promise<Played> {
  const world = await setUp(options.seed);
  let round = 0;
  try {
    for (round = 1; round <= options.rounds; round++) {
      const began = performance.now();
      world.report.length = 0;
      await playRound(world);
      const tookMs = Math.round(performance.now() - began);
      options.progress?.(`round ${round}: ${world.report.length} things done, ${tookMs} ms`);
    }
    await bringToAnEnd(world);
  } catch (error) {
    const kept = keep(world.daemon);
    const what = error instanceof Error ? error.message : String(error);
    const done = world.report.map((line) => `  ${line}`).join("\n");
    throw new Error(
      `seed ${options.seed}, round ${round} of ${options.rounds}: ${what}\nWhat was done in it:\n${done}\nIts folder: ${kept}`,
      { cause: error },
    );
  } finally {
    world.follower.breakOff();
    await world.daemon.stop();
  }
  const { lines, history, follower } = world;
  const agents = follower.events.filter(({ type }) => type === "agent.created").length;
  return { agents, exits: history.exits, lines: lines.total, events: follower.events.length };
}

async function setUp(seed: number): Promise<World> {
  const dice = createDice(seed);
  const daemon = await startDaemon();
  const evidence = join(daemon.project, "evidence");
  mkdirSync(evidence);
  // Where it cannot be told who belongs to a run but by its marks, nobody clears them.
  const kinds = kindsWith({ cgroups: await hasCgroups(daemon) });
  for (const kind of kinds) await putTemplate(daemon, kind, evidence);
  const model = createModel(Array.from({ length: AGENTS }, (_, index) => `agent-${index}`));
  const report: string[] = [];
  const { home } = daemon;
  const follower = createFollower(home);
  follower.connect();
  return {
    ...{ home, operator: operatorOf(home), daemon, evidence, dice, kinds, model, follower, report },
    history: createHistory(evidence, kinds, model),
    lines: createLineCheck(evidence),
    note: (text) => void report.push(text),
  };
}

async function hasCgroups({ client }: TestDaemon): Promise<boolean> {
  const { agent_id, containment } = await client.agents.create({
    agent_id: "first",
    command: ["sleep", "100"],
  });
  await client.agents.remove(agent_id);
  return containment === "full";
}

/** Small, so that a round sees several archives. */
const ROTATE_AT = "16KiB";

/** With rotation, as soon as the daemon knows it. */
async function putTemplate({ client }: TestDaemon, kind: Kind, evidence: string): Promise<void> {
  const put = (rotate?: string) =>
    client.templates.put(kind.template_id, templateOf(kind, evidence, rotate) as never);
  await put(ROTATE_AT).catch(() => put());
}

async function playRound(world: World): Promise<void> {
  const { dice, model, kinds, daemon } = world;
  const actions = drawActions(dice, model, kinds, SPAN_MS);
  const endAtMs = dice.soon(SPAN_MS * 1.5);
  const ending = endings[drawn(dice.roll())] as Ending;
  if (dice.chance(0.2)) world.follower.connect();
  const began = performance.now();
  const under = actions.map(async (action) => {
    await delay(action.atMs);
    await perform(world, action, began);
  });
  await delay(endAtMs);
  world.note(`${Math.round(performance.now() - began)} ms: ${ending.name}`);
  await ending.end(world);
  await Promise.all(under);
  complain("after the daemon's end", doubles(world.home));
  if (daemon.pid() === undefined) {
    if (dice.chance(0.25)) await killSomebody(world, dice);
    if (dice.chance(0.15)) await dieInBoot(world);
  }
  await bringBack(world);
  await verify(world);
}

interface Ending {
  name: string;
  weight: number;
  end: (world: World) => Promise<void>;
}

const endings: readonly Ending[] = [
  { name: "kill -9 of the daemon", weight: 70, end: killDaemon },
  {
    name: "restart",
    weight: 12,
    end: async ({ daemon, note }) => {
      const { code, stderr } = await daemon.cli(["restart"]);
      if (code !== 0) note(`restart ended with ${code}: ${stderr}`);
    },
  },
  {
    name: "restart, and kill -9 in the middle of it",
    weight: 8,
    end: async (world) => {
      const restarted = world.daemon.cli(["restart"]);
      await delay(world.dice.below(900));
      await killDaemon(world);
      await restarted;
    },
  },
  {
    name: "stop --keep-agents",
    weight: 6,
    end: async ({ daemon }) => void (await daemon.cli(["stop", "--keep-agents"])),
  },
  {
    name: "stop",
    weight: 4,
    end: async ({ daemon, model }) => {
      for (const belief of model.agents.values()) belief.untouched = undefined;
      await daemon.cli(["stop"]);
      for (const belief of model.agents.values()) belief.untouched = undefined;
    },
  },
];

function drawn(roll: number): number {
  let left = roll * endings.reduce((sum, { weight }) => sum + weight, 0);
  return endings.findIndex(({ weight }) => {
    left -= weight;
    return left < 0;
  });
}

/** Whoever is the daemon at this moment; during a hand-over that may be nobody for an instant. */
async function killDaemon({ daemon, note }: World): Promise<void> {
  const pid = daemon.pid();
  if (pid === undefined) return note("no daemon held the lock");
  process.kill(pid, "SIGKILL");
  await until(() => (daemon.pid() === pid ? ["the daemon that was killed holds the lock"] : []));
}

/** A daemon that is killed while it takes its agents over. */
async function dieInBoot(world: World): Promise<void> {
  const starting = world.daemon.start().catch(() => {});
  await until(() => (world.daemon.pid() === undefined ? ["the lock is not taken"] : []));
  await delay(world.dice.below(400));
  world.note("kill -9 of the daemon as it boots");
  await killDaemon(world);
  await starting;
}

/** Starts a daemon, unless a hand-over is about to bring one forth. */
async function bringBack(world: World): Promise<void> {
  const { daemon, operator } = world;
  const { code, stderr } = await daemon.cli(["start", "--config", daemon.config, "--port", "0"]);
  if (code !== 0 && code !== 5) throw new Error(`start ended with ${code}: ${stderr}`);
  await until(async () => {
    const { status } = await operator.get("/readyz");
    return status === 200 ? [] : [`/readyz answers ${status}`];
  });
  world.follower.connect();
}

/** The daemon becomes what was acknowledged; then all that can be known at that moment is right. */
async function verify(world: World): Promise<void> {
  const { home, operator, model, history, follower, evidence, lines, kinds } = world;
  // Some agents are never still: each has to be seen in order once.
  const inOrder = new Set<string>();
  const first = follower.events.length;
  const look = async () => {
    const begun = history.begun();
    const agents = await agentsNow(operator, follower);
    history.take(follower.events);
    complain("by what happened", [...history.complaints, ...follower.complaints]);
    const wrong = compare(
      { api: agents, journal: journaledAgents(home), processes: scan(home) },
      model,
      history,
    );
    for (const [id, complaints] of wrong) if (complaints.length === 0) inOrder.add(id);
    const complaints = [...wrong].flatMap(([id, texts]) => (inOrder.has(id) ? [] : texts));
    return { begun, agents, complaints };
  };
  let seen = await look();
  await until(async () => {
    if (seen.complaints.length > 0) seen = await look();
    return seen.complaints;
  });
  const { agents, begun } = seen;
  complain("by their processes", doubles(home));
  const live = new Set(agents.flatMap(({ run_id, pid }) => (pid && run_id ? [run_id] : [])));
  complain("by the agents' own evidence", [
    ...linesOf(join(evidence, "overlaps")).map((line) => `two trees of one agent were alive: ${line}`),
    ...history.unaccounted(begun, live),
  ]);
  const printed = agents.map((agent) => lines.check(operator, agent.agent_id, agent.created_at));
  complain("by what was printed", (await Promise.all(printed)).flat());
  complain("by the stream of events", streamAgainst(home, follower.events.slice(first)));
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

/** What time does not mend. */
class BrokenPromise extends Error {}

function complain(where: string, complaints: readonly string[]): void {
  if (complaints.length === 0) return;
  throw new BrokenPromise(`${where}:\n${complaints.map((text) => `  ${text}`).join("\n")}`);
}

/** Tries until there is nothing to complain of. */
async function until(look: () => string[] | Promise<string[]>): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    const complaints = await Promise.resolve()
      .then(look)
      .catch((error: Error) => {
        if (error instanceof BrokenPromise) throw error;
        return [error.message];
      });
    if (complaints.length === 0) return;
    if (performance.now() > deadline) complain(`after ${PATIENCE_MS} ms`, complaints);
    await delay(PAUSE_MS);
  }
}

/** Everything is deleted, the daemon stopped: nothing is left. */
async function bringToAnEnd(world: World): Promise<void> {
  const { daemon, operator, model, home } = world;
  world.report.length = 0;
  const { json } = await operator.get("/agents?limit=1000");
  const all = (json["items"] as Agent[]).map(({ agent_id }) =>
    model.request(agent_id, { exists: false }, () => operator.delete(`/agents/${agent_id}`)),
  );
  await Promise.all(all);
  await verify(world);
  complain(
    "after all were deleted",
    scan(home).map(({ pid, agentId }) => `${agentId} has process ${pid}`),
  );
  await daemon.cli(["stop"]);
  complain(
    "after the stop",
    processesOf(home).map(({ pid, command }) => `process ${pid}: ${command}`),
  );
}

/** A copy of the folder; sockets and pipes stay behind. */
function keep({ project }: TestDaemon): string {
  const kept = mkdtempSync(join(tmpdir(), "openstarry-fault-"));
  cpSync(project, kept, {
    recursive: true,
    filter: (path) => {
      const stat = statSync(path, { throwIfNoEntry: false });
      return stat !== undefined && (stat.isFile() || stat.isDirectory());
    },
  });
  return kept;
}
