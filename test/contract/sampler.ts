import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import type { ProcessRef, ResourceFigures, SampledRun, Sampler } from "../../core/index.js";
import { newRunId } from "./run-id.js";

export interface SamplerSubject {
  readonly sampler: Sampler;
  /** Stops it, as the daemon's end does. Called twice. */
  release?(): void | Promise<void>;
}

export interface SamplerSuite {
  /** Registers one test with whatever runner is used. */
  test: (name: string, body: () => Promise<void>) => void;
  factory: () => SamplerSubject | Promise<SamplerSubject>;
}

/** Long enough for the kernel's clock ticks, 10 ms, to make no difference. */
const WINDOW_MS = 1_000;
/** How far a figure may be off, in points of a core. */
const POINTS = 5;
const MOST = availableParallelism() * 100 + POINTS;

/** A process tree of the test, as a spawner would tell it. */
interface Subject extends SampledRun {
  readonly child: ChildProcess;
}

/**
 * The contract of a `Sampler`, for samplers of this machine's own processes (Linux). They are real ones,
 * and what is measured is held against what /proc says of them.
 */
export function testSampler(suite: SamplerSuite): void {
  const withSubject = (name: string, body: (sampler: Sampler, start: StartSubject) => Promise<void>) =>
    suite.test(`sampler: ${name}`, async () => {
      const started: ChildProcess[] = [];
      const subject = await suite.factory();
      try {
        await body(subject.sampler, (script) => startSubject(script, started));
      } finally {
        for (const child of started) await endTree(child);
        await subject.release?.();
        await subject.release?.();
      }
    });

  withSubject("says how often it wants to be asked", async (sampler) => {
    assert.ok(sampler.name.length > 0);
    assert.ok(sampler.intervalMs > 0);
  });

  withSubject("has nothing to say of nothing", async (sampler) => {
    assert.equal((await sampler.sample([])).size, 0);
    assert.equal((await sampler.sample([])).size, 0);
  });

  withSubject("measures the CPU time of a busy process", async (sampler, start) => {
    const busy = await start(`echo "$$"; while :; do :; done`);
    const { figures, least, most } = await measured(sampler, [busy], busy);
    assert.ok(figures.cpu_percent >= least - POINTS, `${figures.cpu_percent} % of at least ${least} %`);
    assert.ok(figures.cpu_percent <= most + POINTS, `${figures.cpu_percent} % of at most ${most} %`);
    assert.ok(most > 10, "the machine is too busy to tell anything");
    const usedMs = cpuTicks(busy.processes) * 10;
    assert.ok(figures.cpu_ms <= usedMs + 10 && figures.cpu_ms > 0, `${figures.cpu_ms} of ${usedMs} ms`);
    assert.equal(figures.processes, 1);
  });

  withSubject("sees a busy grandchild below a parent that sleeps", async (sampler, start) => {
    const tree = await start(`sh -c 'while :; do :; done' & echo "$$ $!"; wait`);
    assert.equal(tree.processes.length, 2);
    const { figures, least, most } = await measured(sampler, [tree], tree);
    assert.ok(figures.cpu_percent >= least - POINTS, `${figures.cpu_percent} % of at least ${least} %`);
    assert.ok(figures.cpu_percent <= most + POINTS, `${figures.cpu_percent} % of at most ${most} %`);
    assert.ok(most > 10, "the machine is too busy to tell anything");
    assert.equal(figures.processes, 2);
  });

  withSubject("sees the memory that a child holds", async (sampler, start) => {
    const holder = `const held = Buffer.alloc(96 << 20, 1); console.log(process.argv[1], process.pid); setInterval(() => held, 1e6)`;
    const tree = await start(`'${process.execPath}' -e '${holder}' "$$" & wait`);
    const { figures } = await measured(sampler, [tree], tree);
    const resident = tree.processes.reduce((sum, { pid }) => sum + residentBytes(pid), 0);
    assert.ok(figures.memory_bytes > 96 * 2 ** 20);
    assert.ok(Math.abs(figures.memory_bytes - resident) < resident * 0.2, `not ${resident} bytes`);
  });

  withSubject("keeps two runs apart", async (sampler, start) => {
    const busy = await start(`echo "$$"; while :; do :; done`);
    const idle = await start(`echo "$$"; exec sleep 60`);
    await sampler.sample([busy, idle]);
    await wait(WINDOW_MS);
    const figures = await sampler.sample([busy, idle]);
    assert.equal(figures.size, 2);
    const percentOf = ({ run_id }: Subject) => figures.get(run_id)?.cpu_percent ?? Number.NaN;
    assert.ok(percentOf(idle) <= POINTS, `${percentOf(idle)} % of a process that sleeps`);
    assert.ok(percentOf(busy) > percentOf(idle));
  });

  withSubject(
    "takes nothing away, and adds nothing, when a process ends in between",
    async (sampler, start) => {
      const tree = await start(`sh -c 'while :; do :; done' & echo "$$ $!"; wait; exec sleep 60`);
      await sampler.sample([tree]);
      await wait(WINDOW_MS);
      const before = (await sampler.sample([tree])).get(tree.run_id);
      const [main, burner] = tree.processes;
      assert.ok(before && main && burner);
      process.kill(burner.pid, "SIGKILL");
      await until(() => startTicks(burner.pid) === undefined, "the child to be gone");
      await wait(WINDOW_MS);
      const after = (await sampler.sample([{ ...tree, processes: [main] }])).get(tree.run_id);
      assert.ok(after);
      assert.ok(after.cpu_percent >= 0 && after.cpu_percent <= MOST, `${after.cpu_percent} %`);
      assert.ok(after.cpu_ms >= before.cpu_ms, `${after.cpu_ms} ms after ${before.cpu_ms} ms`);
      assert.equal(after.processes, 1);
      await wait(WINDOW_MS);
      const idle = (await sampler.sample([{ ...tree, processes: [main] }])).get(tree.run_id);
      assert.ok((idle?.cpu_percent ?? 100) <= POINTS, `${idle?.cpu_percent} % of what is left, which sleeps`);
    },
  );

  withSubject("says nothing of a run that is gone, and goes on with the others", async (sampler, start) => {
    const gone = await start(`echo "$$"; exec sleep 60`);
    const alive = await start(`echo "$$"; exec sleep 60`);
    await sampler.sample([gone, alive]);
    await endTree(gone.child);
    await wait(WINDOW_MS);
    assert.deepEqual([...(await sampler.sample([gone, alive])).keys()], [alive.run_id]);
    assert.equal((await sampler.sample([gone])).size, 0);
  });

  withSubject("counts no process that only has the pid of one of the run", async (sampler, start) => {
    const run = await start(`echo "$$"; exec sleep 60`);
    const [main] = run.processes;
    assert.ok(main);
    const former = { ...run, processes: [{ ...main, start_ticks: main.start_ticks - 1_000 }] };
    await sampler.sample([former]);
    await wait(WINDOW_MS);
    assert.equal((await sampler.sample([former])).size, 0);
  });

  withSubject("answers nothing impossible, however often it is asked", async (sampler, start) => {
    const busy = await start(`echo "$$"; while :; do :; done`);
    let cpuMs = 0;
    for (let round = 0; round < 60; round++) {
      const figures = (await sampler.sample([busy])).get(busy.run_id);
      if (figures) {
        assert.ok(figures.cpu_percent >= 0 && figures.cpu_percent <= MOST, `${figures.cpu_percent} %`);
        assert.ok(figures.cpu_ms >= cpuMs, `${figures.cpu_ms} ms after ${cpuMs} ms`);
        cpuMs = figures.cpu_ms;
      }
      await wait(20);
    }
    assert.ok(cpuMs > 0, "it never had figures");
  });

  withSubject("tells what is shared once, where it can", async (sampler, start) => {
    if (!sampler.proportionalMemory) return;
    const tree = await start(`sh -c 'sleep 60; :' & echo "$$ $!"; wait`);
    const resident = tree.processes.reduce((sum, { pid }) => sum + residentBytes(pid), 0);
    const bytes = await sampler.proportionalMemory(tree.processes);
    assert.ok(bytes !== undefined && bytes > 0 && bytes < resident, `${bytes} of ${resident} bytes`);
    await endTree(tree.child);
    const gone = () => tree.processes.every(({ pid }) => startTicks(pid) === undefined);
    await until(gone, "all of the tree to be gone");
    assert.equal(await sampler.proportionalMemory(tree.processes), undefined);
  });
}

type StartSubject = (script: string) => Promise<Subject>;

/** Runs a script, which prints the pids that it is made of, its own first. */
async function startSubject(script: string, started: ChildProcess[]): Promise<Subject> {
  // A group of its own, to be ended as a whole.
  const child = spawn("/bin/sh", ["-c", script], { detached: true, stdio: ["ignore", "pipe", "inherit"] });
  started.push(child);
  const line = await new Promise<string>((resolve, reject) => {
    let text = "";
    child.stdout?.setEncoding("utf8").on("data", (more: string) => {
      text += more;
      if (text.includes("\n")) resolve(text);
    });
    child.once("close", () => reject(new Error(`"${script}" ended and printed: ${text}`)));
  });
  const processes = line.trim().split(" ").map(Number).map(refOf);
  return { agent_id: "subject", run_id: newRunId(), processes, child };
}

async function endTree(child: ChildProcess): Promise<void> {
  try {
    process.kill(-(child.pid ?? 0), "SIGKILL");
  } catch {
    // It is gone.
  }
  if (child.exitCode === null && child.signalCode === null) {
    await new Promise<void>((resolve) => child.once("exit", () => resolve()));
  }
}

/** Two looks, and between which bounds the CPU figure of one run has to be by /proc. */
async function measured(sampler: Sampler, runs: readonly SampledRun[], run: SampledRun) {
  const look = async () => {
    const [beforeMs, before] = [performance.now(), cpuTicks(run.processes)];
    const figures = (await sampler.sample(runs)).get(run.run_id);
    return { figures, beforeMs, before, afterMs: performance.now(), after: cpuTicks(run.processes) };
  };
  const first = await look();
  await wait(WINDOW_MS);
  const second = await look();
  assert.ok(second.figures, "there are no figures at the second look");
  const percent = (ticks: number, ms: number) => (ticks * 10 * 100) / ms;
  return {
    figures: second.figures satisfies ResourceFigures,
    least: percent(second.before - first.after, second.afterMs - first.beforeMs),
    most: percent(second.after - first.before, second.beforeMs - first.afterMs),
  };
}

function refOf(pid: number): ProcessRef {
  const start_ticks = startTicks(pid);
  assert.ok(start_ticks !== undefined, `process ${pid} has ended`);
  return { pid, start_ticks };
}

/** Field 22 of proc(5) `stat`; `undefined` for one that is gone, or only waits for its parent to look. */
function startTicks(pid: number): number | undefined {
  const fields = statFields(pid);
  return fields === undefined || fields[0] === "Z" ? undefined : Number(fields[19]);
}

/** User and system time of these processes, in clock ticks of 10 ms. */
function cpuTicks(processes: readonly ProcessRef[]): number {
  return processes.reduce((sum, { pid }) => {
    const fields = statFields(pid) ?? [];
    return sum + Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
  }, 0);
}

function statFields(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    return text.slice(text.lastIndexOf(")") + 2).split(" ");
  } catch {
    return undefined;
  }
}

function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1]) * 1_024;
}

const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`waited 20 s in vain for ${what}`);
    await wait(5);
  }
}
