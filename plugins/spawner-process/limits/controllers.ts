import { accessSync, constants, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";

/** What of cgroups limits a run. */
export const CONTROLLERS = ["memory", "cpu", "pids"] as const;
export type Controller = (typeof CONTROLLERS)[number];

/** Where the groups of this home's runs are made for one controller. */
export interface ControllerFolder {
  readonly version: 1 | 2;
  readonly folder: string;
}

/** A group of this name holds the daemon alone: it stands beside those of the agents, not above them. */
const LEAF = "daemon";

/**
 * The cgroup v2 folder below which groups of agents belong: the daemon's own, or the one above where the
 * daemon was put into one of its own there (systemd: `Delegate=yes`, `DelegateSubgroup=daemon`).
 * `undefined` without cgroup v2.
 */
export function baseOfGroups(): string | undefined {
  const own = ownGroup("");
  return own !== undefined && basename(own) === LEAF ? dirname(own) : own;
}

/**
 * The controllers that may be used: of version 2 in the folder of the runs' groups, else in a hierarchy
 * of version 1. Those that are not here are not to be had.
 */
export function openControllers(
  homeTag: string,
  groups: { base: string; folder: string } | undefined,
): ReadonlyMap<Controller, ControllerFolder> {
  const enabled = groups ? enable(groups.base, groups.folder, CONTROLLERS) : [];
  const found = CONTROLLERS.flatMap((controller): [Controller, ControllerFolder][] => {
    if (groups && enabled.includes(controller)) return [[controller, { version: 2, folder: groups.folder }]];
    const folder = openVersion1(controller, homeTag);
    return folder === undefined ? [] : [[controller, { version: 1, folder }]];
  });
  return new Map(found);
}

/**
 * Has `base` give controllers to `folder`, and that to the groups in it. Answers those that it did. The
 * daemon does not move out of the way: a service manager could not start it there again while agents live.
 */
export function enable(base: string, folder: string, wanted: readonly string[]): string[] {
  if (!mayHandDown(base)) return [];
  const offered = words(join(base, "cgroup.controllers"));
  return wanted.filter((name) => offered.includes(name) && handDown(base, name) && handDown(folder, name));
}

/**
 * Only the root gives controllers and has processes as well (cgroups(7), "no internal processes"). A part
 * of them another group would give, too, and turn into a threaded one, below which no process may begin.
 */
function mayHandDown(group: string): boolean {
  const type = words(join(group, "cgroup.type")).join(" ");
  return type === "" || (type === "domain" && words(join(group, "cgroup.procs")).length === 0);
}

function handDown(group: string, controller: string): boolean {
  const file = join(group, "cgroup.subtree_control");
  if (words(file).includes(controller)) return true;
  return write(file, `+${controller}`);
}

function openVersion1(controller: Controller, homeTag: string): string | undefined {
  const own = ownGroup(controller);
  if (own === undefined) return undefined;
  try {
    accessSync(own, constants.W_OK);
  } catch {
    return undefined;
  }
  // Made with the first group in it.
  return join(own, `openstarry-${homeTag}`);
}

/** Removes a group, or a folder of them, that nothing is in; answers whether it is gone. */
export function removeIfEmpty(folder: string): boolean {
  try {
    rmdirSync(folder);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT";
  }
}

/** The names of the groups in a folder. */
export function groupsIn(folder: string): string[] {
  try {
    const entries = readdirSync(folder, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  } catch {
    return [];
  }
}

/** This process's group of a version 1 controller; of version 2 for an empty name. */
function ownGroup(controller: string): string | undefined {
  try {
    const mount = mountOf(controller);
    const line = readFileSync("/proc/self/cgroup", "utf8")
      .split("\n")
      .map((it) => /^\d+:([^:]*):(.*)$/.exec(it))
      .find((it) => (controller === "" ? it?.[1] === "" : it?.[1]?.split(",").includes(controller)));
    const path = line?.[2];
    if (mount === undefined || path === undefined) return undefined;
    // In a container a part of the tree is mounted, and paths may still count from the whole one's root.
    const inside = mount.root !== "/" && path.startsWith(mount.root) ? path.slice(mount.root.length) : path;
    return join(mount.point, inside);
  } catch {
    return undefined;
  }
}

/** Where the hierarchy of version 2 is mounted; `undefined` without. */
export function mountOfGroups(): string | undefined {
  try {
    return mountOf("")?.point;
  } catch {
    return undefined;
  }
}

/** Where a hierarchy is mounted (proc(5), `mountinfo`), and which part of it. */
function mountOf(controller: string): { root: string; point: string } | undefined {
  for (const line of readFileSync("/proc/self/mountinfo", "utf8").split("\n")) {
    const [mount = "", filesystem = ""] = line.split(" - ");
    const [type, , options = ""] = filesystem.split(" ");
    const [, , , root = "/", point = ""] = mount.split(" ");
    const isIt =
      controller === "" ? type === "cgroup2" : type === "cgroup" && options.split(",").includes(controller);
    if (isIt) return { root, point };
  }
  return undefined;
}

function words(file: string): string[] {
  try {
    return readFileSync(file, "utf8").split(/\s+/).filter(Boolean);
  } catch {
    return [];
  }
}

/** Whether a file of a group took a value. */
export function write(file: string, value: string): boolean {
  try {
    writeFileSync(file, value);
    return true;
  } catch {
    return false;
  }
}
