import { expect, test } from "vitest";
import { formatSize, parseSize } from "../../../../core/lib/units.js";

test.each([
  [0, "0B"],
  [1_023, "1023B"],
  [1_024, "1KiB"],
  [3_500, "3.4KiB"],
  [10_189, "10KiB"],
  [1_048_063, "1023KiB"],
  [1_048_065, "1MiB"],
  [134_217_728, "128MiB"],
  [1.5 * 2 ** 30, "1.5GiB"],
  [2_000 * 2 ** 40, "2000TiB"],
])("%d bytes are shown as %s", (bytes, text) => {
  expect(formatSize(bytes)).toBe(text);
  // It can be written into a template as it is shown.
  expect(Math.abs((parseSize(text) ?? 0) - bytes)).toBeLessThanOrEqual(bytes * 0.06);
});
