import { rfc3339, type StateEntry, type StateWrite } from "../../core/index.js";

/** A value as the server stores it; see `scripts.ts`. */
export interface Row {
  version: number;
  updatedAtMs: number;
  /** 0: never. */
  expiresAtMs: number;
  json: string;
}

/** Parses `VERSION UPDATED_AT EXPIRES_AT JSON`. The answer to a put has no JSON: give it then. */
export function parseRow(text: string, json?: string): Row {
  const [, version, updatedAt, expiresAt, rest = ""] = /^(\d+) (\d+) (\d+) ?(.*)/s.exec(text) ?? [];
  return {
    version: Number(version),
    updatedAtMs: Number(updatedAt),
    expiresAtMs: Number(expiresAt),
    json: json ?? rest,
  };
}

export function entryOf(key: string, { version, updatedAtMs, expiresAtMs, json }: Row): StateEntry {
  return {
    key,
    value: JSON.parse(json),
    version,
    updated_at: rfc3339(updatedAtMs),
    ...(expiresAtMs === 0 ? {} : { expires_at: rfc3339(expiresAtMs) }),
  };
}

/** A write as the scripts take it. */
export interface EncodedWrite {
  op: "put" | "delete";
  key: string;
  /** The expected version, 0 for an absent key; empty for any version. */
  expect: string;
  ttl: string;
  json: string;
}

/** Encodes a write. The value is copied as JSON, so that later changes of it have no effect. */
export function encodeWrite(write: StateWrite): EncodedWrite {
  const { op, key, expect = "" } = write;
  const expected = expect === "absent" ? "0" : String(expect);
  if (op === "delete") return { op, key, expect: expected, ttl: "", json: "" };
  const json = JSON.stringify(write.value) ?? "null";
  return { op, key, expect: expected, ttl: String(write.ttlMs ?? ""), json };
}
