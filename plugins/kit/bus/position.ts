import { OpenStarryError } from "../../../core/index.js";

/** A number, as all buses but NATS assign it. */
const OFFSET = /^\d{1,16}$/;

/** Throws `input_invalid` unless `after` is absent or looks like a position that the bus assigns. */
export function assertPosition(after: string | undefined, pattern = OFFSET): void {
  if (after === undefined || pattern.test(after)) return;
  throw new OpenStarryError("input_invalid", {
    detail: '"after" is not a position of this bus',
    hint: 'give the position of a message, or "0" to read all kept messages',
  });
}
