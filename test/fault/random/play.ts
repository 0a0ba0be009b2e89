import { cpSync, mkdtempSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Agent } from "../../../core/index.js";
import type { TestDaemon } from "../../helpers/daemon.js";
import { processesOf } from "../../helpers/processes.js";
import { drawActions, killSomebody, perform } from "./actions.js";
import { bringBack, dieInBoot, drawEnding } from "./endings.js";
import { doubles, scan } from "./scan.js";
import { complain } from "./until.js";
import { verify } from "./verify.js";
import { setUp, type World } from "./world.js";

export interface PlayOptions {
  rounds: number;
  seed: number;
  /** False: agents are not put into cgroups, and found by their marks alone. */
  cgroups: boolean;
  /** Told of every round, when it is over. */
  progress?: (text: string) => void;
}

export interface Played {
  agents: number;
  exits: number;
  lines: number;
  events: number;
}

/** Within which requests are made, and the daemon is killed. */
const SPAN_MS = 500;
/** A daemon that does not answer at all must not hold the suite up. */
const ROUND_MS = 300_000;

/**
 * Kills a daemon at random points under a random mix of requests and mishaps, starts it again, and holds
 * what there is against what was acknowledged, round after round. Throws when something differs, with the
 * seed, the round and what was done in it; the folder is kept then.
 */
export async function play(options: PlayOptions): Promise<Played> {
  const world = await setUp(options);
  let round = 0;
  try {
    for (round = 1; round <= options.rounds; round++) {
      const began = performance.now();
      world.report.length = 0;
      await inTime(playRound(world));
      const tookMs = Math.round(performance.now() - began);
      options.progress?.(`round ${round}: ${world.report.length} things done, ${tookMs} ms`);
    }
    await inTime(bringToAnEnd(world));
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
    world.sweep();
  }
  const { lines, history, follower } = world;
  const agents = follower.events.filter(({ type }) => type === "agent.created").length;
  return { agents, exits: history.exits, lines: lines.total, events: follower.events.length };
}

async function inTime(work: Promise<void>): Promise<void> {
  const over = new AbortController();
  const late = delay(ROUND_MS, undefined, { signal: over.signal }).then(() => {
    throw new Error(`it was not over after ${ROUND_MS} ms`);
  });
  await Promise.race([work, late]).finally(() => over.abort());
}

async function playRound(world: World): Promise<void> {
  const { dice, model, kinds, daemon } = world;
  const actions = drawActions(dice, model, kinds, SPAN_MS);
  const endAtMs = dice.soon(SPAN_MS * 1.5);
  const ending = drawEnding(dice);
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
