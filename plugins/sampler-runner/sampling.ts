import {
  type Agent,
  errorText,
  formatDuration,
  isLive,
  type PluginContext,
  type ProcessRef,
  type ResourceFigures,
  rfc3339,
  type SampledRun,
  type Sampler,
  type Spawner,
  spawner,
  withDeadline,
} from "../../core/index.js";

export interface SamplingOptions {
  sampler: Sampler;
  /** How long the sampler, or a spawner, may take to answer. */
  deadlineMs: number;
}

/** Measures the live runs at the sampler's interval. */
export interface Sampling {
  start(): void;
  stop(): void;
}

export function createSampling(ctx: PluginContext, { sampler, deadlineMs }: SamplingOptions): Sampling {
  const { clock } = ctx;
  /** What does not work, by what failed. */
  const faults = new Map<string, string>();
  let stopped = false;
  let inFlight = false;
  let cancel = () => {};

  function tick(): void {
    cancel = clock.after(sampler.intervalMs, tick);
    if (inFlight) return;
    inFlight = true;
    void measure()
      .catch((error) => ctx.log.error({ err: error }, "could not measure what agents use"))
      .finally(() => {
        inFlight = false;
      });
  }

  async function measure(): Promise<void> {
    const runs = await findRuns(ctx.agents.list().filter(({ state }) => isLive(state)));
    // Figures of a sampler that does not answer would grow old on the agents, so they are taken away.
    const figures =
      (await attempt(`sampler ${sampler.name}`, async () => checked(await sampler.sample(runs)))) ??
      new Map();
    if (stopped) return;
    const sampled_at = rfc3339(clock.now());
    await ctx.reports.resources(new Map([...figures].map(([id, known]) => [id, { ...known, sampled_at }])));
  }

  /** Finds the processes of the runs. Each spawner is asked once, for all of its own. */
  async function findRuns(agents: readonly Agent[]): Promise<SampledRun[]> {
    const found = [...ctx.use(spawner).values()].map((it) =>
      runsOf(
        it,
        agents.filter((agent) => agent.spawner === it.name),
      ),
    );
    return (await Promise.all(found)).flat();
  }

  async function runsOf(it: Spawner, agents: readonly Agent[]): Promise<SampledRun[]> {
    if (!it.processes || agents.length === 0) return [];
    const ids = agents.flatMap(({ run_id }) => run_id ?? []);
    const trees = await attempt(`processes of spawner ${it.name}`, async () => it.processes?.(ids));
    return agents.flatMap(({ agent_id, run_id = "" }) => {
      const processes: readonly ProcessRef[] = trees?.get(run_id) ?? [];
      return processes.length === 0 ? [] : [{ agent_id, run_id, processes }];
    });
  }

  /** Resolves with the answer, or with `undefined` and a fault when `work` throws or does not settle. */
  async function attempt<T>(what: string, work: () => Promise<T>): Promise<T | undefined> {
    const late = `it did not answer within ${formatDuration(deadlineMs)}`;
    try {
      const answer = await withDeadline(clock, deadlineMs, late, work);
      setFault(what, undefined);
      return answer;
    } catch (error) {
      setFault(what, errorText(error));
      return undefined;
    }
  }

  function setFault(what: string, fault: string | undefined): void {
    if (fault !== undefined) faults.set(what, `${what}: ${fault}`);
    else if (!faults.delete(what)) return;
    if (faults.size === 0) ctx.daemon.recovered();
    else ctx.daemon.degraded([...faults.values()].join("; "));
  }

  return {
    start() {
      if (sampler.intervalMs > 0) tick();
      else setFault(`sampler ${sampler.name}`, `its interval is ${sampler.intervalMs} ms`);
    },
    stop() {
      stopped = true;
      cancel();
    },
  };
}

const FIGURES = ["cpu_percent", "cpu_ms", "memory_bytes", "processes"] as const;

/** A sampler that counts wrongly must not have agents stopped for it. */
function checked(figures: ReadonlyMap<string, ResourceFigures>): ReadonlyMap<string, ResourceFigures> {
  for (const [runId, known] of figures) {
    const wrong = FIGURES.find((name) => !(known[name] >= 0 && Number.isFinite(known[name])));
    if (wrong) throw new Error(`${wrong} of run ${runId} is ${known[wrong]}`);
  }
  return figures;
}
