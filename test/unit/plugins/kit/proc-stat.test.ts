import { expect, it } from "vitest";
import { parseProcessStat } from "../../../../plugins/kit/proc-stat.js";

/** A line of proc(5) `stat` whose fields 3 and up are these; those that are left out are 7. */
function stat(name: string, fields: Record<number, string | number>): Uint8Array {
  const rest = Array.from({ length: 50 }, (_, index) => fields[index + 3] ?? 7);
  return Buffer.from(`4711 (${name}) ${rest.join(" ")}\n`);
}

const fields = { 3: "S", 4: 42, 8: -1, 14: 100, 15: 23, 16: 5, 17: 6, 22: 987_654_321, 24: 3 };

it.each(["sleep", "a) b (c", "1 2 3", ") 4 5", "tab\t)", ""])("reads past the name %j", (name) => {
  expect(parseProcessStat(4711, stat(name, fields))).toEqual({
    pid: 4711,
    ppid: 42,
    start_ticks: 987_654_321,
    ownMs: 1_230,
    endedMs: 110,
    memoryBytes: 3 * 4_096,
  });
});

it("keeps every digit of large numbers", () => {
  const large = 2 ** 53 - 1;
  expect(parseProcessStat(1, stat("x", { ...fields, 22: large })).start_ticks).toBe(large);
});
