/** One test that a contract suite has registered. */
export interface SuiteTest {
  name: string;
  run: () => Promise<void>;
}

/** What a suite registers, without a runner. */
export function testsOf(
  register: (test: (name: string, run: () => Promise<void>) => void) => void,
): SuiteTest[] {
  const tests: SuiteTest[] = [];
  register((name, run) => void tests.push({ name, run }));
  return tests;
}

/** What the suites wait for something that should come. */
const PATIENCE_MS = 20_000;
const SHORT_MS = 5_000;
/** No test that is ever over takes so long. */
const NEVER_MS = 12_000;

/**
 * What comes to a driver in memory comes at once: cuts the patience of the suites short until the answered
 * function is called.
 */
export function shortenPatience(): () => void {
  const { setTimeout } = globalThis;
  const shortened = (callback: () => void, ms?: number) =>
    setTimeout(callback, ms === PATIENCE_MS ? SHORT_MS : ms);
  globalThis.setTimeout = Object.assign(shortened, setTimeout) as typeof setTimeout;
  return () => {
    globalThis.setTimeout = setTimeout;
  };
}

/** The names of those that fail, in their order; all run at the same time. One that is never over has failed too. */
export async function failing(tests: readonly SuiteTest[]): Promise<string[]> {
  const late = () =>
    new Promise<never>((_, reject) => {
      setTimeout(() => reject(new Error("it is never over")), NEVER_MS).unref();
    });
  const results = await Promise.allSettled(tests.map(({ run }) => Promise.race([run(), late()])));
  return tests.filter((_, index) => results[index]?.status === "rejected").map(({ name }) => name);
}
