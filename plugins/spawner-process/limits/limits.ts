import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { OsLimits } from "../../../core/index.js";
import { type Controller, type ControllerFolder, groupsIn, removeIfEmpty, write } from "./controllers.js";

/** A file of a group and what is written into it; where it may be absent, that does no harm. */
type Setting = readonly [file: string, value: string, mayBeAbsent?: "optional"];

interface Limit {
  readonly controller: Controller;
  /** By the version of cgroups. The limit itself is the first, and its number the first word. */
  readonly settings: Readonly<Record<1 | 2, (value: number) => readonly [Setting, ...Setting[]]>>;
}

/** What both versions begin with. */
const PERIOD_US = 100_000;
const quota = (percent: number) => String(Math.max(1_000, Math.round((percent / 100) * PERIOD_US)));
const whole = (value: number) => String(Math.round(value));

/** What each limit is in a group (the kernel's cgroup-v2.rst and cgroup-v1/): the one place that knows. */
const LIMITS: Readonly<Record<"memoryBytes" | "cpuPercent" | "pids", Limit>> = {
  memoryBytes: {
    controller: "memory",
    settings: {
      // All of it or none: half an agent is of no use. What is swapped out would not be counted.
      2: (bytes) => [
        ["memory.max", whole(bytes)],
        ["memory.swap.max", "0", "optional"],
        ["memory.oom.group", "1", "optional"],
      ],
      1: (bytes) => [
        ["memory.limit_in_bytes", whole(bytes)],
        ["memory.memsw.limit_in_bytes", whole(bytes), "optional"],
      ],
    },
  },
  cpuPercent: {
    controller: "cpu",
    settings: {
      2: (percent) => [["cpu.max", `${quota(percent)} ${PERIOD_US}`]],
      1: (percent) => [["cpu.cfs_quota_us", quota(percent)]],
    },
  },
  pids: {
    controller: "pids",
    settings: { 2: (pids) => [["pids.max", whole(pids)]], 1: (pids) => [["pids.max", whole(pids)]] },
  },
};
type Held = keyof typeof LIMITS;

const NO_QUOTA: Readonly<Record<1 | 2, Setting>> = { 2: ["cpu.max", "max"], 1: ["cpu.cfs_quota_us", "-1"] };

/** How often the kernel acted: `file`, and the word before the number. */
const COUNTERS = {
  oomKills: {
    controller: "memory",
    1: ["memory.oom_control", "oom_kill"],
    2: ["memory.events", "oom_kill"],
  },
  refusedForks: { controller: "pids", 1: ["pids.events", "max"], 2: ["pids.events", "max"] },
} as const;

/** The limits that cgroups hold, by run. */
export interface LimitGroups {
  /** Whether groups can hold this at all. */
  can(limit: keyof OsLimits): boolean;
  /** Makes and sets the groups that hold these; answers those that the run has to join. */
  create(runId: string, limits: OsLimits): string[];
  /** The groups that a run has besides the one of its containment. */
  groupsOf(runId: string): string[];
  /** Those of the limits that hold for a process: it is in the group, which allows no more. */
  holding(runId: string, limits: OsLimits, pid: number): OsLimits;
  /** Sets the CPU of a run, and takes in those of `pids` that are not in its group. False: it cannot be. */
  setCpu(runId: string, percent: number | undefined, pids: () => readonly number[]): boolean;
  /** How often the kernel acted on the run so far. */
  count(runId: string, what: keyof typeof COUNTERS): number;
  /** The most memory that the run has had, where the kernel keeps that. */
  peakBytes(runId: string): number | undefined;
  /** Runs that have a group. */
  runs(): string[];
  remove(runId: string): void;
  /** Removes the folders, unless a run is left in them. */
  release(): void;
}

export function createLimitGroups(controllers: ReadonlyMap<Controller, ControllerFolder>): LimitGroups {
  const groupOf = (runId: string, { folder }: ControllerFolder) => join(folder, runId);
  /** Runs whose groups have to go. */
  const over = new Set<string>();
  const old = [...controllers.values()].filter(({ version }) => version === 1);

  /** The limits that groups can hold here, each with its group. */
  function possible(runId: string, limits: OsLimits) {
    return (Object.keys(LIMITS) as Held[]).flatMap((name) => {
      const at = controllers.get(LIMITS[name].controller);
      const value = limits[name];
      return at === undefined || value === undefined
        ? []
        : [{ name, value, group: groupOf(runId, at), settings: LIMITS[name].settings[at.version](value) }];
    });
  }

  const set = (group: string, [file, value, optional]: Setting) =>
    write(join(group, file), value) || optional !== undefined;

  const read = (file: string) => {
    try {
      return readFileSync(file, "latin1");
    } catch {
      return "";
    }
  };

  /** A policy may have lowered it since. */
  function isAtMost(group: string, [file, value]: Setting): boolean {
    const set = Number.parseInt(read(join(group, file)), 10);
    return set >= 0 && set <= Number.parseInt(value, 10);
  }

  const pidsIn = (group: string) => new Set(read(join(group, "cgroup.procs")).split("\n").map(Number));

  function make(group: string): boolean {
    try {
      mkdirSync(group, { recursive: true });
      return true;
    } catch {
      return false;
    }
  }

  return {
    can: (limit) => limit in LIMITS && controllers.has(LIMITS[limit as Held].controller),
    create(runId, limits) {
      const made = possible(runId, limits).filter(
        ({ group, settings }) => make(group) && settings.every((setting) => set(group, setting)),
      );
      return [...new Set(made.map(({ group }) => group))];
    },
    groupsOf: (runId) => [...new Set(old.map((at) => groupOf(runId, at)))].filter((it) => existsSync(it)),
    holding(runId, limits, pid) {
      const held = possible(runId, limits).filter(
        ({ group, settings: [limit] }) => pidsIn(group).has(pid) && isAtMost(group, limit),
      );
      return Object.fromEntries(held.map(({ name, value }) => [name, value]));
    },
    setCpu(runId, percent, pids) {
      const at = controllers.get("cpu");
      if (at === undefined) return false;
      const group = groupOf(runId, at);
      const settings =
        percent === undefined ? [NO_QUOTA[at.version]] : LIMITS.cpuPercent.settings[at.version](percent);
      if (!make(group) || !settings.every((setting) => set(group, setting))) return false;
      // Of version 2 it is the group that the run began in.
      return at.version === 2 ? pidsIn(group).size > 0 : takeIn(group, pids);
    },
    count(runId, what) {
      const { controller, ...files } = COUNTERS[what];
      const at = controllers.get(controller);
      if (at === undefined) return 0;
      const [file, word] = files[at.version];
      const line = read(join(groupOf(runId, at), file))
        .split("\n")
        .find((it) => it.startsWith(`${word} `));
      return Number(line?.slice(word.length + 1) ?? 0);
    },
    peakBytes(runId) {
      const at = controllers.get("memory");
      if (at === undefined) return undefined;
      const file = at.version === 2 ? "memory.peak" : "memory.max_usage_in_bytes";
      return Number(read(join(groupOf(runId, at), file))) || undefined;
    },
    runs: () => [...new Set(old.flatMap(({ folder }) => groupsIn(folder)))],
    remove(runId) {
      over.add(runId);
      removeOver();
    },
    release() {
      removeOver();
      for (const { folder } of old) removeIfEmpty(folder);
    },
  };

  /**
   * Those of version 2 are the run's own, and go with its containment. A process that is gone for all
   * others may have threads that are still ending: then its group goes with the next one.
   */
  function removeOver() {
    for (const runId of over) {
      const left = old.filter((at) => !removeIfEmpty(groupOf(runId, at)));
      if (left.length === 0) over.delete(runId);
    }
  }

  /** Again until nobody is new: what is in the group forks into it. */
  function takeIn(group: string, pids: () => readonly number[]): boolean {
    for (let round = 0; round < MOST_ROUNDS; round += 1) {
      const inside = pidsIn(group);
      const outside = pids().filter((pid) => !inside.has(pid));
      if (outside.length === 0) return true;
      for (const pid of outside) write(join(group, "cgroup.procs"), String(pid));
    }
    return false;
  }
}

/** A tree that forks faster than it can be taken in is not held. */
const MOST_ROUNDS = 20;
