import { setTimeout as delay } from "node:timers/promises";
import { operatorOf } from "../../helpers/operator.js";
import { processesOf } from "../../helpers/processes.js";
import type { Dice } from "./dice.js";
import { until } from "./until.js";
import type { World } from "./world.js";

/** How a round ends for the daemon. */
export interface Ending {
  name: string;
  weight: number;
  end: (world: World) => Promise<void>;
}

const ENDINGS: readonly Ending[] = [
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

export function drawEnding(dice: Dice): Ending {
  let left = dice.roll() * ENDINGS.reduce((sum, { weight }) => sum + weight, 0);
  for (const ending of ENDINGS) {
    left -= ending.weight;
    if (left < 0) return ending;
  }
  throw new Error("unreachable");
}

/** Whoever is the daemon at this moment; during a hand-over that may be nobody for an instant. */
async function killDaemon({ daemon, note }: World): Promise<void> {
  const pid = daemon.pid();
  if (pid === undefined) return note("no daemon held the lock");
  process.kill(pid, "SIGKILL");
  await until(() => (daemon.pid() === pid ? ["the daemon that was killed holds the lock"] : []));
}

/** A daemon that is killed while it takes its agents over. */
export async function dieInBoot(world: World): Promise<void> {
  const starting = world.daemon.start().catch(() => {});
  await until(() => (world.daemon.pid() === undefined ? ["the lock is not taken"] : []));
  await delay(world.dice.below(400));
  world.note("kill -9 of the daemon as it boots");
  await killDaemon(world);
  await starting;
}

/** Starts a daemon, unless a hand-over is about to bring one forth. In the end there is one. */
export async function bringBack(world: World): Promise<void> {
  const { daemon, home } = world;
  const { code, stderr } = await daemon.cli(["start", "--config", daemon.config, "--port", "0"]);
  if (code !== 0 && code !== 5) throw new Error(`start ended with ${code}: ${stderr}`);
  await until(async () => {
    // Somebody else may have taken its port meanwhile.
    world.operator = operatorOf(home);
    const { status } = await world.operator.get("/readyz");
    const daemons = processesOf(home).filter(({ command }) =>
      command.includes(` start --foreground --home ${home}`),
    );
    const pids = daemons.map(({ pid }) => pid);
    return status === 200 && pids.length === 1 ? [] : [`daemons ${pids}; /readyz answers ${status}`];
  });
  world.follower.connect();
}
