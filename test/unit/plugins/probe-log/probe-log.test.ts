import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import {
  definePlugin,
  type LogLine,
  type Probe,
  probe,
  type Spawner,
  spawner,
  systemClock,
} from "../../../../core/index.js";
import probeLog from "../../../../plugins/probe-log/index.js";
import { createMatcher } from "../../../../plugins/probe-log/matcher.js";
import { createPluginHost } from "../../../helpers/plugin-host.js";
import { watchRun } from "../../../helpers/probe-run.js";
import { waitFor } from "../../../helpers/wait-for.js";

/** A spawner whose agent prints what the test says. */
function printing() {
  const lines: LogLine[] = [];
  const asked: unknown[] = [];
  let reading = 0;
  let handedOut = 0;
  const fake = {
    name: "process",
    async *logs(agentId: string, { signal, ...query }) {
      asked.push({ agentId, ...query });
      reading += 1;
      try {
        for (let index = 0; !signal?.aborted; ) {
          const line = lines[index];
          if (line) {
            index += 1;
            yield line;
            // It has come back for more: this one is read.
            handedOut = Math.max(handedOut, index);
          } else await turn();
        }
      } finally {
        reading -= 1;
      }
    },
  } satisfies Partial<Spawner>;
  const provider = definePlugin({
    name: "printing",
    apiVersion: 1,
    provides: [spawner],
    options: z.strictObject({}),
    setup: (ctx) => ctx.provide(spawner, fake as unknown as Spawner),
  });
  const host = createPluginHost({ plugins: [provider(), probeLog()], clock: systemClock });
  return {
    log: host.use(probe).get("log") as Probe,
    asked,
    reading: () => reading,
    /** All of it was read; what is no longer among the newest 255 lines was looked at, too. */
    isRead: () => handedOut === lines.length,
    print: (text: string, run_id = "run-of-a") =>
      void lines.push({ run_id, stream: "stdout", bytes: Buffer.from(text), cursor: "" }),
    warnings: () => host.log.filter(({ level }) => level === "warn"),
  };
}

describe("probe-log", () => {
  it("is ready at the first line that fits, of this run and no other, and reads no further", async () => {
    const it = printing();
    it.print("listening on 1", "an-earlier-run");
    it.print("listening soon");
    const { said, stop } = watchRun(it.log, "readiness", {
      pattern: "^listening on \\d+$",
      stream: "stdout",
    });
    for (let index = 0; index < 1_000; index++) it.print(`line ${index}`);
    await waitFor(it.isRead, { what: "it to read" });
    expect(it.reading()).toBe(1);
    expect(said).toEqual(["starting: no line fits ^listening on \\d+$ so far"]);
    it.print("listening on 4222");
    await waitFor(() => said.at(-1) === "ready", { what: "readiness" });
    await waitFor(() => it.reading() === 0, { what: "the end of its reading" });
    expect(it.asked).toEqual([{ agentId: "a", follow: true, stream: "stdout" }]);
    stop();
  });

  it("reads no further when it is told to stop", async () => {
    const it = printing();
    const { stop } = watchRun(it.log, "readiness", { pattern: "x" });
    await waitFor(() => it.reading() === 1, { what: "it to read" });
    stop();
    await waitFor(() => it.reading() === 0, { what: "the end of its reading" });
  });

  it("looks at the first 8 KiB of a line", async () => {
    const it = printing();
    it.print(`${"x".repeat(8 * 1024)}beyond`);
    it.print(`${"x".repeat(8 * 1024 - 4)}here and more`);
    const { said, stop } = watchRun(it.log, "readiness", { pattern: "beyond|here" });
    await waitFor(() => said.at(-1) === "ready", { what: "readiness" });
    stop();
    const second = printing();
    second.print(`${"x".repeat(8 * 1024)}beyond`);
    for (let index = 0; index < 300; index++) second.print("more");
    const other = watchRun(second.log, "readiness", { pattern: "beyond" });
    await waitFor(second.isRead, { what: "it to read" });
    expect(other.said).not.toContain("ready");
    other.stop();
  });

  it("a pattern that would never be through holds nobody up, and is named", async () => {
    const it = printing();
    it.print(`${"a".repeat(60)}b`);
    const { said } = watchRun(it.log, "readiness", { pattern: "(a+)+$" });
    await waitFor(() => said.length > 1, { what: "a word" });
    expect(said.slice(1)).toEqual(["starting: the pattern (a+)+$ takes too long on what the agent prints"]);
    expect(it.warnings()).toHaveLength(1);
    await waitFor(() => it.reading() === 0, { what: "the end of its reading" });
  });

  it("refuses a pattern that is none", () => {
    expect(() => watchRun(printing().log, "readiness", { pattern: "(" })).toThrow(
      /pattern: .*[Uu]nterminated group/,
    );
  });
});

it("a matcher begins anew after a pattern that took too long", () => {
  const { fits } = createMatcher();
  expect(() => fits("(a+)+$", [`${"a".repeat(60)}b`])).toThrow(/takes too long/);
  expect(fits("b$", ["a", "ab"])).toBe(true);
  expect(fits("c", ["a", "ab"])).toBe(false);
});
