import { z } from "zod";
import { parseDuration } from "../../core/index.js";

/** A moment, or how long ago it was. */
export const moment = (what: string) =>
  z
    .string()
    .max(60)
    .refine(
      (text) => parseMoment(text, 0) !== undefined,
      'expected a time such as "2026-01-31T12:00:00Z", or a duration such as "10m" for so long ago',
    )
    .optional()
    .meta({ description: `${what} A time (RFC 3339), or a duration such as "10m": so long ago.` });

const RFC3339 = /^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$/;

/** Milliseconds since the epoch; `undefined` for what is neither a time nor a duration. */
export function parseMoment(text: string, nowMs: number): number | undefined {
  const ago = parseDuration(text);
  if (ago !== undefined) return Math.max(0, nowMs - ago);
  const time = RFC3339.test(text) ? Date.parse(text.replace(" ", "T").toUpperCase()) : Number.NaN;
  return Number.isNaN(time) ? undefined : time;
}
