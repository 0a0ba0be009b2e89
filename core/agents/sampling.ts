import type { Agent, Resources } from "../contracts/agent.js";
import type { ResourceSample } from "../contracts/hooks.js";
import { type ResourceFigures, type SampledRun, type Sampler, sampler } from "../contracts/sampler.js";
import { type ProcessRef, type Spawner, spawner } from "../contracts/spawner.js";
import { rfc3339 } from "../lib/clock.js";
import { withDeadline } from "../lib/deadline.js";
import { formatDuration } from "../lib/units.js";
import type { SupervisorDeps } from "./supervisor-deps.js";

export interface SamplingDeps extends Pick<SupervisorDeps, "clock" | "log" | "hooks" | "slots" | "problem"> {
  /** The agents whose process lives. */
  live(): Agent[];
  /** Shows figures, by run, on the agents, and takes away those of all other runs. Answers what is shown. */
  show(figures: ReadonlyMap<string, Resources>): ResourceSample[];
  /** How long a sampler, or a spawner, is waited for. */
  deadlineMs: number;
}

/** Has the live runs measured, at the sampler's pace. */
export interface Sampling {
  /** All plugins are started. Without a sampler nothing happens. */
  start(): void;
  stop(): void;
}

export function createSampling(deps: SamplingDeps): Sampling {
  const { clock, slots, problem } = deps;
  let stopped = false;
  let inFlight = false;
  let cancel = () => {};

  function tick(it: Sampler) {
    cancel = clock.after(it.intervalMs, () => tick(it));
    if (inFlight) return;
    inFlight = true;
    void round(it)
      .catch((error) => deps.log.error({ err: error }, "a round of measuring failed"))
      .finally(() => {
        inFlight = false;
      });
  }

  async function round(it: Sampler): Promise<void> {
    const runs = await findRuns(deps, deps.live());
    // Without an answer the old figures are taken away: they would grow stale on the agents.
    const figures =
      (await attempt(deps, `sampler ${it.name}`, async () => checked(await it.sample(runs)))) ?? new Map();
    if (stopped) return;
    const sampled_at = rfc3339(clock.now());
    const samples = deps.show(new Map([...figures].map(([id, known]) => [id, { ...known, sampled_at }])));
    if (samples.length > 0) await deps.hooks.onResourceSample.promise({ samples });
  }

  return {
    start() {
      if (!slots.has(sampler)) return;
      const it = slots.use(sampler);
      if (it.intervalMs > 0) tick(it);
      else problem(`sampler ${it.name}`, `sampler ${it.name}: its interval is ${it.intervalMs} ms`);
    },
    stop() {
      stopped = true;
      cancel();
    },
  };
}

/** Asks each spawner once for the processes of all its runs. */
async function findRuns(deps: SamplingDeps, agents: readonly Agent[]): Promise<SampledRun[]> {
  const found = [...deps.slots.use(spawner).values()].map((it) =>
    runsOf(
      deps,
      it,
      agents.filter((agent) => agent.spawner === it.name),
    ),
  );
  return (await Promise.all(found)).flat();
}

async function runsOf(deps: SamplingDeps, it: Spawner, agents: readonly Agent[]): Promise<SampledRun[]> {
  if (!it.processes || agents.length === 0) return [];
  const ids = agents.flatMap(({ run_id }) => run_id ?? []);
  const trees = await attempt(deps, `processes of spawner ${it.name}`, async () => it.processes?.(ids));
  return agents.flatMap(({ agent_id, run_id = "" }) => {
    const processes: readonly ProcessRef[] = trees?.get(run_id) ?? [];
    return processes.length === 0 ? [] : [{ agent_id, run_id, processes }];
  });
}

/** What a plugin answers; `undefined`, and a problem of the daemon, when it throws or does not settle. */
async function attempt<T>(
  { clock, problem, deadlineMs }: SamplingDeps,
  what: string,
  work: () => Promise<T>,
): Promise<T | undefined> {
  const late = `it did not answer within ${formatDuration(deadlineMs)}`;
  try {
    const answer = await withDeadline(clock, deadlineMs, late, work);
    problem(what, undefined);
    return answer;
  } catch (error) {
    problem(what, `${what}: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  }
}

const FIGURES = ["cpu_percent", "cpu_ms", "memory_bytes", "processes"] as const;

/** A sampler that counts wrongly must not have agents ended for it. */
function checked(figures: ReadonlyMap<string, ResourceFigures>): ReadonlyMap<string, ResourceFigures> {
  for (const [runId, known] of figures) {
    const wrong = FIGURES.find((name) => !(known[name] >= 0 && Number.isFinite(known[name])));
    if (wrong) throw new Error(`${wrong} of run ${runId} is ${known[wrong]}`);
  }
  return figures;
}
