import { expect, test } from "vitest";
import { withDeadline } from "../../../../core/lib/deadline.js";
import { errorText } from "../../../../core/lib/error-text.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";

const LATE = "start() did not settle within 5s";

test("work that settles in time decides the outcome, and no timer is left", async () => {
  const clock = createFakeClock();
  expect(await withDeadline(clock, 5_000, LATE, async () => 7)).toBe(7);
  const failed = withDeadline(clock, 5_000, LATE, () => {
    throw new Error("broken");
  });
  await expect(failed).rejects.toThrow("broken");
  expect(clock.pending()).toBe(0);
});

test("work that does not settle is left at the deadline and told so by its signal", async () => {
  const clock = createFakeClock();
  let signal: AbortSignal | undefined;
  const waiting = withDeadline(clock, 90_000, LATE, (given) => {
    signal = given;
    return new Promise(() => {});
  });
  const outcome = expect(waiting).rejects.toThrow(LATE);
  await clock.advance(89_999);
  expect(signal?.aborted).toBe(false);
  await clock.advance(1);
  await outcome;
  expect(signal?.reason).toEqual(new Error(LATE));
});

test("work that fails after its deadline is no unhandled rejection", async () => {
  const clock = createFakeClock();
  let fail: (error: Error) => void = () => {};
  const work = () =>
    new Promise((_, reject) => {
      fail = reject;
    });
  const outcome = expect(withDeadline(clock, 10, LATE, work)).rejects.toThrow(LATE);
  await clock.advance(10);
  await outcome;
  fail(new Error("too late"));
});

test.each([
  [new TypeError("broken"), "broken"],
  ["plain text", "plain text"],
  [undefined, "undefined"],
  [null, "null"],
])("the text of %o is %s", (thrown, text) => {
  expect(errorText(thrown)).toBe(text);
});
