import type { OsLimits } from "../../../core/index.js";
import { type ProcessIdentity, parseIdentity } from "../tree/identity.js";

/** Identifies a run on disk and to the kernel: the `target` of this spawner. */
export interface ProcessTarget extends ProcessIdentity {
  readonly shim?: ProcessIdentity | undefined;
  readonly cgroup?: string | undefined;
  /** The limits that it was started with. */
  readonly limits?: OsLimits;
  /** The limits that hold for each process by inheritance (setrlimit(2)). */
  readonly rlimits?: OsLimits;
  /** The user that its template names. */
  readonly user?: string | undefined;
  /** The folder of its result. */
  readonly folder: string;
}

/** Parses a recorded target; `undefined` when it names no process. */
export function parseTarget(value: unknown): ProcessTarget | undefined {
  const identity = parseIdentity(value);
  if (!identity) return undefined;
  const { shim, cgroup, user, folder, limits, rlimits } = value as Partial<ProcessTarget>;
  return {
    ...identity,
    shim: parseIdentity(shim),
    cgroup: typeof cgroup === "string" ? cgroup : undefined,
    limits: parseLimits(limits),
    rlimits: parseLimits(rlimits),
    user: typeof user === "string" ? user : undefined,
    folder: typeof folder === "string" ? folder : "",
  };
}

/** Keeps the limits that are positive numbers. */
function parseLimits(value: unknown): OsLimits {
  const limits = typeof value === "object" && value !== null ? value : {};
  return Object.fromEntries(
    Object.entries(limits).filter(([, limit]) => Number.isFinite(limit) && limit > 0),
  );
}
