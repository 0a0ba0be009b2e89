/** Prints how often something was done in a second. */
export function tell(what, count, ms) {
  console.log(`${what.padEnd(60)}${String(Math.round((count / ms) * 1000)).padStart(9)} / s`);
}

/** Does it `count` times, so many at a time, and tells. */
export async function measure(what, lanes, count, act) {
  let next = 0;
  const lane = async () => {
    while (next < count) await act(next++);
  };
  const began = performance.now();
  await Promise.all(Array.from({ length: lanes }, lane));
  tell(`${what}, ${lanes} at a time`, count, performance.now() - began);
}
