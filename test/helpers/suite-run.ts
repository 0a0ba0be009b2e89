import { afterAll, beforeAll, test } from "vitest";

/** One test that a contract suite has registered. */
interface SuiteTest {
  name: string;
  run: () => Promise<void>;
}

type Register = (name: string, run: () => Promise<void>) => void;

/** Collects the tests that a suite registers, without a runner. */
function testsOf(register: (test: Register) => void): SuiteTest[] {
  const tests: SuiteTest[] = [];
  register((name, run) => void tests.push({ name, run }));
  return tests;
}

/** How long the suites wait for an expected item. */
const PATIENCE_MS = 20_000;
const SHORT_MS = 5_000;
/** Longer than any test that ends. */
const NEVER_MS = 12_000;

/**
 * Shortens the timeout of the suites, since items of a driver in memory come at once. Returns the function that
 * restores it.
 */
function shortenPatience(): () => void {
  const { setTimeout } = globalThis;
  const shortened = (callback: () => void, ms?: number) =>
    setTimeout(callback, ms === PATIENCE_MS ? SHORT_MS : ms);
  globalThis.setTimeout = Object.assign(shortened, setTimeout) as typeof setTimeout;
  return () => {
    globalThis.setTimeout = setTimeout;
  };
}

/** Runs all tests at the same time, and resolves with the names of those that fail or do not end. */
async function failing(tests: readonly SuiteTest[]): Promise<string[]> {
  const late = () =>
    new Promise<never>((_, reject) => {
      setTimeout(() => reject(new Error("the test does not end")), NEVER_MS).unref();
    });
  const results = await Promise.allSettled(tests.map(({ run }) => Promise.race([run(), late()])));
  return tests.filter((_, index) => results[index]?.status === "rejected").map(({ name }) => name);
}

/** A fault of a driver. */
export interface DriverFault {
  /** The fault, as in "a store that …". */
  name: string;
  /** The tests that must fail. Only a few others may fail too. */
  noticed: readonly string[];
  /** Whether many other tests fail too, since they depend on what is broken. */
  isBroad?: boolean;
}

/** A suite in which everything fails does not show the fault. */
const MAX_OTHERS = 8;
/** Enough for tests that do not end. */
const TIMEOUT_MS = 120_000;

/** Registers a test for each fault: the suite must fail in the tests that the fault names. */
export function tryFaults<F extends DriverFault>(
  what: string,
  faults: readonly F[],
  register: (fault: F, test: Register) => void,
): void {
  let restorePatience: () => void;
  beforeAll(() => {
    restorePatience = shortenPatience();
  });
  afterAll(() => restorePatience());

  test.concurrent.for([...faults])(
    `the contract suite gives the right verdict on a ${what} that $name`,
    { timeout: TIMEOUT_MS },
    async (fault, { expect }) => {
      const names = await failing(testsOf((test) => register(fault, test)));
      const noticed = fault.noticed.map((name) => `${what}: ${name}`);
      expect(names).toEqual(expect.arrayContaining(noticed));
      if (fault.isBroad) return;
      expect(names.length).toBeLessThanOrEqual(noticed.length === 0 ? 0 : noticed.length + MAX_OTHERS);
    },
  );
}
