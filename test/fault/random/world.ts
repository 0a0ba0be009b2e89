import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { startDaemon, type TestDaemon } from "../../helpers/daemon.js";
import { operatorOf } from "../../helpers/operator.js";
import type { Stage } from "./actions.js";
import { createDice, type Dice } from "./dice.js";
import { createFollower, type Follower } from "./follower.js";
import { createHistory, type History } from "./history.js";
import { type Kind, kindsWith, templateOf } from "./kinds.js";
import { createLineCheck, type LineCheck } from "./lines.js";
import { createModel } from "./model.js";
import { killIfThere, scan } from "./scan.js";

/** A daemon, and all that watches it. */
export interface World extends Stage {
  daemon: TestDaemon;
  evidence: string;
  dice: Dice;
  kinds: readonly Kind[];
  follower: Follower;
  /** So many of its events have been held against the journal. */
  told: number;
  history: History;
  lines: LineCheck;
  report: string[];
  /** Leaves no process behind, whatever has happened. */
  sweep(): void;
}

const AGENTS = 10;

export async function setUp({ seed, cgroups }: { seed: number; cgroups: boolean }): Promise<World> {
  const dice = createDice(seed);
  const plugins = cgroups ? [] : [["spawner-process", { cgroups: false }]];
  const daemon = await startDaemon({ config: { plugins } });
  const evidence = join(daemon.project, "evidence");
  mkdirSync(evidence);
  // Where it cannot be told who belongs to a run but by its marks, nobody clears them.
  const kinds = kindsWith({ cgroups: await hasCgroups(daemon) });
  for (const kind of kinds) await putTemplate(daemon, kind, evidence);
  const model = createModel(Array.from({ length: AGENTS }, (_, index) => `agent-${index}`));
  const report: string[] = [];
  const { home } = daemon;
  const sweep = () => {
    process.off("exit", sweep);
    for (const { pid } of scan(home)) killIfThere(pid);
  };
  process.on("exit", sweep);
  const follower = createFollower(home);
  follower.connect();
  return {
    ...{ home, operator: operatorOf(home), daemon, evidence, dice, kinds, model, follower, report },
    told: 0,
    history: createHistory(evidence, kinds, model),
    lines: createLineCheck(evidence),
    note: (text) => void report.push(text),
    sweep,
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

/** The least there is: an agent fills it in a round or two. */
const ROTATE_AT = "64KiB";

/** With rotation, as soon as the daemon knows it. */
async function putTemplate({ client }: TestDaemon, kind: Kind, evidence: string): Promise<void> {
  const put = (rotate?: string) =>
    client.templates.put(kind.template_id, templateOf(kind, evidence, rotate) as never);
  await put(ROTATE_AT).catch(() => put());
}
