import { type Expected, rfc3339, type StateEntry, type StateWrite } from "../../core/index.js";
import { expectVersion } from "./expect-version.js";

/** A key as it is, or was. */
export interface Row {
  key: string;
  version: number;
  updatedAtMs: number;
  expiresAtMs?: number;
  /** JSON. Absent: it was deleted. */
  json?: string;
}

/** A write as it will be kept. Made when it is handed over: what its value becomes later does not matter. */
export interface EncodedWrite {
  key: string;
  json?: string;
  ttlMs?: number;
  expect?: Expected;
}

/** The end of time as JavaScript knows it. */
const LATEST_MS = 8.64e15;

export function encodeWrite(write: StateWrite): EncodedWrite {
  const { key, expect } = write;
  const expected = expect === undefined ? {} : { expect };
  if (write.op === "delete") return { key, ...expected };
  const { ttlMs } = write;
  return {
    key,
    json: JSON.stringify(write.value) ?? "null",
    ...(ttlMs === undefined ? {} : { ttlMs }),
    ...expected,
  };
}

export interface Plan {
  /** By key: what is to be written. */
  rows: Map<string, Row>;
  /** The namespace's, after it. */
  version: number;
  answers: (StateEntry | undefined)[];
}

/** What a write comes to, with nothing changed yet. Throws `state_conflict`. `find` answers what is kept. */
export function planWrite(
  writes: readonly EncodedWrite[],
  before: { version: number; find: (key: string) => Row | undefined; nowMs: number },
): Plan {
  const { find, nowMs } = before;
  const plan: Plan = { rows: new Map(), version: before.version, answers: [] };
  for (const { key, json, ttlMs, expect } of writes) {
    const found = plan.rows.get(key) ?? find(key);
    const live = found && isLive(found, nowMs) ? found : undefined;
    expectVersion(key, live?.version ?? 0, expect);
    if (json === undefined && !live) {
      plan.answers.push(undefined);
      continue;
    }
    plan.version += 1;
    const row: Row = { key, version: plan.version, updatedAtMs: nowMs };
    if (json !== undefined) row.json = json;
    if (ttlMs !== undefined) row.expiresAtMs = Math.min(nowMs + ttlMs, LATEST_MS);
    plan.rows.set(key, row);
    plan.answers.push(entryOf(json === undefined && live ? live : row));
  }
  return plan;
}

/** There, for whoever looks now. */
export function isLive({ json, expiresAtMs = Number.POSITIVE_INFINITY }: Row, nowMs: number): boolean {
  return json !== undefined && expiresAtMs > nowMs;
}

export function entryOf({ key, version, updatedAtMs, expiresAtMs, json = "null" }: Row): StateEntry {
  return {
    key,
    value: JSON.parse(json),
    version,
    updated_at: rfc3339(updatedAtMs),
    ...(expiresAtMs === undefined ? {} : { expires_at: rfc3339(expiresAtMs) }),
  };
}
