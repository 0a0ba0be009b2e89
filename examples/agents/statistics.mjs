/** How tables mark missing values. */
const MISSING = new Set(["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-"]);
const NUMBER = /^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$/;
const DATE = /^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$/;
const BOOLEAN = /^(true|false|yes|no)$/i;

/** @param {string} text */
export function isMissing(text) {
  return MISSING.has(text.trim());
}

/**
 * Infers the type of a column: what all its values can be read as. Codes with leading zeros, such as postal codes,
 * stay text.
 *
 * @param {string[]} values without the missing ones
 * @returns {"number" | "date" | "boolean" | "text" | "empty"}
 */
export function inferType(values) {
  if (values.length === 0) return "empty";
  const all = (/** @type {RegExp} */ pattern) => values.every((value) => pattern.test(value.trim()));
  if (all(NUMBER) && !values.some((value) => /^0\d/.test(value.trim()))) return "number";
  if (all(DATE)) return "date";
  return all(BOOLEAN) ? "boolean" : "text";
}

/**
 * Computes mean and sample standard deviation (n - 1) in one pass by Welford's method, which does not lose digits when
 * the values are large and close together. The median of an even number of values is the mean of the middle two.
 *
 * @param {number[]} values
 */
export function describeNumbers(values) {
  let mean = 0;
  let squares = 0;
  values.forEach((value, index) => {
    const delta = value - mean;
    mean += delta / (index + 1);
    squares += delta * (value - mean);
  });
  const sorted = Float64Array.from(values).sort();
  const n = sorted.length;
  const at = (/** @type {number} */ index) => sorted[index] ?? Number.NaN;
  return {
    min: at(0),
    max: at(n - 1),
    mean: round(mean),
    median: round(n % 2 === 1 ? at((n - 1) / 2) : (at(n / 2 - 1) + at(n / 2)) / 2),
    ...(n > 1 ? { stddev: round(Math.sqrt(squares / (n - 1))) } : {}),
  };
}

/**
 * Finds the most frequent values, most frequent first; equal ones alphabetically.
 *
 * @param {string[]} values
 * @param {number} count
 */
export function topValues(values, count) {
  /** @type {Map<string, number>} */
  const seen = new Map();
  for (const value of values) seen.set(value, (seen.get(value) ?? 0) + 1);
  const top = [...seen]
    .sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1))
    .slice(0, count)
    .map(([value, n]) => ({ value, count: n }));
  return { distinct: seen.size, top };
}

/**
 * Computes Pearson's correlation over the rows in which both values are known; `undefined` if one of the two does not
 * vary, or if there are fewer than three such rows.
 *
 * @param {(number | undefined)[]} left
 * @param {(number | undefined)[]} right
 */
export function correlation(left, right) {
  let n = 0;
  let [meanX, meanY, xx, yy, xy] = [0, 0, 0, 0, 0];
  left.forEach((x, index) => {
    const y = right[index];
    if (x === undefined || y === undefined) return;
    n++;
    const dx = x - meanX;
    const dy = y - meanY;
    meanX += dx / n;
    meanY += dy / n;
    xx += dx * (x - meanX);
    yy += dy * (y - meanY);
    xy += dx * (y - meanY);
  });
  if (n < 3 || xx === 0 || yy === 0) return undefined;
  return { r: round(xy / Math.sqrt(xx * yy)), rows: n };
}

/** Rounds to four significant digits more than a reader needs, without the noise of binary fractions. */
export function round(/** @type {number} */ value) {
  return Number(value.toPrecision(8));
}
