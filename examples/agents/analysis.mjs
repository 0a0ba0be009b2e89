import { basename } from "node:path";
import { readCsv } from "./csv.mjs";
import { correlation, describeNumbers, inferType, isMissing, round, topValues } from "./statistics.mjs";

/** The number of pairs grows with the square of the number of columns. */
const MOST_CORRELATED_COLUMNS = 20;
const MOST_GROUPS = 20;

/**
 * Describes a table: each column, correlations of numeric columns, and the groups of one column.
 *
 * @param {string} path
 * @param {{ groupBy?: string, top?: number, onProgress?: (share: number) => void }} [options]
 */
export async function analyse(path, { groupBy = "", top = 5, onProgress } = {}) {
  const table = await readTable(path, onProgress);
  if (groupBy !== "" && !table.header.includes(groupBy)) {
    throw new Error(`there is no column "${groupBy}" in ${path}; it has: ${table.header.join(", ")}`);
  }
  const columns = table.header.map((name, index) => describeColumn(name, table.columns[index] ?? [], top));
  const numbers = numericColumns(table, columns);
  const correlations = correlate(numbers);
  const groups = groupBy === "" ? undefined : describeGroups(table, groupBy, numbers);
  return {
    file: basename(path),
    rows: table.rows,
    ...(table.ragged > 0 ? { rows_of_another_length: table.ragged } : {}),
    findings: findings(columns, correlations, groups),
    columns,
    correlations,
    ...(groups ? { groups } : {}),
  };
}

/** @param {string} path @param {((share: number) => void) | undefined} onProgress */
async function readTable(path, onProgress) {
  /** @type {string[] | undefined} */
  let header;
  /** @type {string[][]} */
  let columns = [];
  let rows = 0;
  let ragged = 0;
  for await (const record of readCsv(path, onProgress)) {
    if (!header) {
      header = record.map((name, index) => name.trim() || `column_${index + 1}`);
      columns = header.map(() => []);
      continue;
    }
    rows++;
    if (record.length !== header.length) ragged++;
    columns.forEach((column, index) => {
      column.push(record[index] ?? "");
    });
  }
  if (!header) throw new Error(`${path} is empty`);
  return { header, columns, rows, ragged };
}

/** @param {string} name @param {string[]} values @param {number} top */
function describeColumn(name, values, top) {
  const present = values.filter((value) => !isMissing(value));
  const type = inferType(present);
  const common = { name, type, count: present.length, missing: values.length - present.length };
  if (type === "number") return { ...common, ...describeNumbers(present.map(Number)) };
  if (type === "date") {
    const sorted = [...present].sort();
    return { ...common, min: sorted[0], max: sorted.at(-1) };
  }
  return { ...common, ...topValues(present, top) };
}

/** @typedef {{ name: string, values: (number | undefined)[] }} Numbers */

/** @returns {Numbers[]} */
function numericColumns(table, columns) {
  return columns
    .map((column, index) => ({ column, raw: table.columns[index] ?? [] }))
    .filter(({ column }) => column.type === "number")
    .map(({ column, raw }) => ({
      name: column.name,
      values: raw.map((value) => (isMissing(value) ? undefined : Number(value))),
    }));
}

/** Strongest first. @param {Numbers[]} numbers */
function correlate(numbers) {
  const some = numbers.slice(0, MOST_CORRELATED_COLUMNS);
  return some
    .flatMap((left, index) =>
      some.slice(index + 1).flatMap((right) => {
        const found = correlation(left.values, right.values);
        return found ? [{ a: left.name, b: right.name, ...found }] : [];
      }),
    )
    .sort((one, other) => Math.abs(other.r) - Math.abs(one.r));
}

/** Largest group first; the mean of every numeric column in each. @param {Numbers[]} numbers */
function describeGroups(table, by, numbers) {
  const keys = table.columns[table.header.indexOf(by)] ?? [];
  /** @type {Map<string, number[]>} */
  const rowsOf = new Map();
  keys.forEach((key, row) => {
    const group = isMissing(key) ? "(missing)" : key;
    const rows = rowsOf.get(group) ?? [];
    rows.push(row);
    rowsOf.set(group, rows);
  });
  const groups = [...rowsOf]
    .sort(([a, n], [b, m]) => m.length - n.length || (a < b ? -1 : 1))
    .slice(0, MOST_GROUPS)
    .map(([value, rows]) => ({ value, rows: rows.length, means: meansOf(numbers, rows) }));
  return { by, distinct: rowsOf.size, groups };
}

/** @param {Numbers[]} numbers @param {number[]} rows */
function meansOf(numbers, rows) {
  return Object.fromEntries(
    numbers.flatMap(({ name, values }) => {
      const known = rows.map((row) => values[row]).filter((value) => value !== undefined);
      if (known.length === 0) return [];
      return [[name, round(known.reduce((sum, value) => sum + value, 0) / known.length)]];
    }),
  );
}

/** Describes what stands out, in sentences; every figure in them is in the result too. */
function findings(columns, correlations, groups) {
  const found = [];
  for (const { name, missing, count } of columns) {
    if (missing > 0) found.push(`${name}: ${missing} of ${missing + count} values are missing`);
  }
  for (const { a, b, r } of correlations.slice(0, 3)) {
    if (Math.abs(r) < 0.3) continue;
    found.push(`${a} and ${b} ${r > 0 ? "rise together" : "move against each other"} (r = ${r.toFixed(2)})`);
  }
  for (const { name, top, count } of columns) {
    const [first, second] = top ?? [];
    // A lead that a handful of rows could reverse means nothing.
    if (!first || !second || first.count === second.count || first.count < count / 20) continue;
    found.push(`the most frequent ${name} is ${first.value}: ${first.count} of ${count}`);
  }
  if (groups) found.push(...groupFindings(groups));
  return found;
}

/** Compares the two largest groups by the measure in which they differ most. */
function groupFindings({ by, groups }) {
  const [one, other] = groups;
  if (!one || !other) return [];
  const difference = (/** @type {string} */ name) => {
    const [x, y] = [one.means[name], other.means[name]];
    return Math.abs(x - y) / (Math.abs(x) + Math.abs(y) || 1);
  };
  const shared = Object.keys(one.means).filter((name) => other.means[name] !== undefined);
  const measure = shared.sort((a, b) => difference(b) - difference(a))[0];
  if (measure === undefined) return [];
  const mean = (group) => `${group.means[measure].toFixed(2)} for ${group.value}`;
  return [`by ${by}, the mean of ${measure} is ${mean(one)} and ${mean(other)}`];
}
