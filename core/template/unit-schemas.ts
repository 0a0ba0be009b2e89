import { z } from "zod";
import { parseDuration, parsePercent, parseSize } from "../lib/units.js";

/** A length of time with its unit, as in `"30s"`, not shorter than `min`; becomes milliseconds. */
export const duration = ({ min = "0s" }: { min?: string } = {}) =>
  z
    .string()
    .max(40)
    .refine(
      (text) => parseDuration(text) !== undefined,
      'expected a duration with its unit, such as "30s" or "10m"',
    )
    .refine(
      (text) => (parseDuration(text) ?? 0) >= (parseDuration(min) ?? 0),
      `expected a duration of at least ${min}`,
    )
    .transform((text) => parseDuration(text) ?? 0)
    .meta({ description: 'A duration with its unit: "500ms", "30s", "10m", "2h", "1d".' });

/** An amount of memory or disk with its unit, as in `"10MiB"`; becomes bytes. */
export const size = () =>
  z
    .string()
    .max(40)
    .refine((text) => parseSize(text) !== undefined, 'expected a size with its unit, such as "10MiB"')
    .transform((text) => parseSize(text) ?? 0)
    .meta({ description: 'A size with its unit: "512KiB", "10MiB", "1GB".' });

/** A share, as in `"150%"`; becomes the number. */
export const percent = (of = "one core") =>
  z
    .string()
    .max(40)
    .refine((text) => parsePercent(text) !== undefined, `expected a share of ${of}, such as "50%"`)
    .transform((text) => parsePercent(text) ?? 0)
    .meta({ description: `A share of ${of}: "50%", "12.5%".` });
