import { duration } from "../../core/index.js";

/** The option `interval` of the samplers: the time between two measurements. */
export const sampleInterval = () =>
  duration()
    .refine((ms) => ms >= 250 && ms <= 3_600_000, "from 250ms to 1h")
    .default(1_000);
