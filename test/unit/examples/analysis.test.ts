import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const example = (name: string) => new URL(`../../../examples/${name}`, import.meta.url);
// By address: the examples are plain JavaScript without declarations.
const { createParser } = await import(example("agents/csv.mjs").href);
const { analyse } = await import(example("agents/analysis.mjs").href);
const { correlation, describeNumbers, inferType, topValues } = await import(
  example("agents/statistics.mjs").href
);

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "openstarry-csv-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** The same text whole, and cut after every character. */
function parse(text: string): string[][] {
  const read = (pieces: Iterable<string>) => {
    const parser = createParser();
    const records: string[][] = [];
    for (const piece of pieces) records.push(...parser.take(piece));
    records.push(...parser.end());
    return records;
  };
  const whole = read([text]);
  expect(read(text)).toEqual(whole);
  return whole;
}

describe("the CSV parser", () => {
  it.each([
    [
      "plain fields",
      "a,b\n1,2\n",
      [
        ["a", "b"],
        ["1", "2"],
      ],
    ],
    [
      "no line end at the end",
      "a,b\n1,2",
      [
        ["a", "b"],
        ["1", "2"],
      ],
    ],
    [
      "CRLF",
      "a,b\r\n1,\r\n",
      [
        ["a", "b"],
        ["1", ""],
      ],
    ],
    [
      "delimiters and line ends in quotes",
      'a,b\n"x, y","1\n2"\n',
      [
        ["a", "b"],
        ["x, y", "1\n2"],
      ],
    ],
    ["doubled quotes", 'a\n"W. H. ""Bud"" Barron"\n""""\n', [["a"], ['W. H. "Bud" Barron'], ['"']]],
    [
      "empty fields, quoted and not",
      'a,b,c\n"",,""\n',
      [
        ["a", "b", "c"],
        ["", "", ""],
      ],
    ],
    [
      "empty lines",
      "a,b\n\n1,2\n\n",
      [
        ["a", "b"],
        ["1", "2"],
      ],
    ],
    ["quotes inside a field", 'a\n5" disk\n', [["a"], ['5" disk']]],
    [
      "semicolons",
      "a;b\n1,5;2\n",
      [
        ["a", "b"],
        ["1,5", "2"],
      ],
    ],
    [
      "tabs",
      "a\tb\n1\t2\n",
      [
        ["a", "b"],
        ["1", "2"],
      ],
    ],
    ["a header alone", "a,b", [["a", "b"]]],
    ["nothing", "", []],
  ])("reads %s", (_, text, records) => {
    expect(parse(text)).toEqual(records);
  });

  it("says where a quote was opened that is never closed", () => {
    expect(() => parse('a\n1\n"2\n3\n')).toThrow("the quote opened in line 3 is never closed");
  });
});

describe("the statistics", () => {
  it("describe numbers", () => {
    expect(describeNumbers([2, 4, 4, 4, 5, 5, 7, 9])).toEqual({
      min: 2,
      max: 9,
      mean: 5,
      median: 4.5,
      stddev: 2.1380899,
    });
    expect(describeNumbers([3])).toEqual({ min: 3, max: 3, mean: 3, median: 3 });
    // A sum of squares would lose every digit of this deviation.
    expect(describeNumbers([1e9 + 1, 1e9 + 2, 1e9 + 3]).stddev).toBe(1);
  });

  it("tell types apart", () => {
    expect(inferType(["1", "-2.5", ".5", "1e3"])).toBe("number");
    expect(inferType(["01234", "98765"])).toBe("text");
    expect(inferType(["2012-01-01", "2012-01-01T10:00:00Z"])).toBe("date");
    expect(inferType(["yes", "No"])).toBe("boolean");
    expect(inferType(["1", "x"])).toBe("text");
    expect(inferType([])).toBe("empty");
  });

  it("correlate what is known on both sides", () => {
    expect(correlation([1, 2, undefined, 3], [2, 4, 9, 6])).toEqual({ r: 1, rows: 3 });
    expect(correlation([1, 2, 3], [3, 2, 1])?.r).toBe(-1);
    expect(correlation([1, 1, 1], [1, 2, 3])).toBeUndefined();
    expect(correlation([1, 2], [1, 2])).toBeUndefined();
  });

  it("count values, the same way whatever their order", () => {
    const expected = {
      distinct: 3,
      top: [
        { value: "b", count: 2 },
        { value: "a", count: 1 },
      ],
    };
    expect(topValues(["b", "c", "a", "b"], 2)).toEqual(expected);
  });
});

describe("the analysis", () => {
  // The figures were computed with Python's csv and statistics modules.
  it("of the weather data agrees with another program's", async () => {
    const shares: number[] = [];
    const result = await analyse(fileURLToPath(example("data/weather.csv")), {
      groupBy: "location",
      onProgress: (share: number) => shares.push(share),
    });
    const column = (name: string) => result.columns.find((it: { name: string }) => it.name === name);
    expect(result.rows).toBe(2_922);
    expect(column("temp_max")).toEqual({
      name: "temp_max",
      type: "number",
      count: 2_922,
      missing: 0,
      min: -7.7,
      max: 37.8,
      mean: 16.769131,
      median: 16.1,
      stddev: 8.6445958,
    });
    expect(column("date")).toMatchObject({ type: "date", min: "2012-01-01", max: "2015-12-31" });
    expect(result.correlations[0]).toEqual({ a: "temp_max", b: "temp_min", r: 0.9260688, rows: 2_922 });
    expect(result.groups.groups.map(({ value }: { value: string }) => value)).toEqual([
      "New York",
      "Seattle",
    ]);
    expect(result.findings).toContain("temp_max and temp_min rise together (r = 0.93)");
    expect(shares.at(-1)).toBe(1);
  });

  it("of the airports reads quoted names and counts what is missing", async () => {
    const result = await analyse(fileURLToPath(example("data/airports.csv")), { groupBy: "state", top: 3 });
    expect(result.rows).toBe(3_376);
    expect(result).not.toHaveProperty("rows_of_another_length");
    expect(result.columns[3]).toMatchObject({ name: "state", missing: 12, distinct: 56 });
    expect(result.correlations[0]).toMatchObject({ r: -0.56454689 });
    expect(result.groups.groups[0]).toMatchObject({ value: "AK", rows: 263, means: { latitude: 61.334311 } });
  });

  it("names the columns when the one to group by is not there, and counts odd rows", async () => {
    const file = join(folder, "odd.csv");
    await writeFile(file, "\ufeffa,b\n1,2\n3\n4,5,6\n");
    await expect(analyse(file, { groupBy: "c" })).rejects.toThrow('there is no column "c"');
    await expect(analyse(file, { groupBy: "c" })).rejects.toThrow("it has: a, b");
    expect(await analyse(file)).toMatchObject({
      rows: 3,
      rows_of_another_length: 2,
      columns: [{ name: "a", mean: 2.6666667 }, { missing: 1 }],
    });
    await writeFile(file, "");
    await expect(analyse(file)).rejects.toThrow("is empty");
  });
});
