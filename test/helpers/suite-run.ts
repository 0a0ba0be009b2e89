import { afterAll, beforeAll, test } from "vitest";

/** One test that a contract suite has registered. */
interface SuiteTest {
  name: string;
  run: () => Promise<void>;
}

type Register = (name: string, run: () => Promise<void>) => void;

/** What a suite registers, without a runner. */
function testsOf(register: (test: Register) => void): SuiteTest[] {
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
function shortenPatience(): () => void {
  const { setTimeout } = globalThis;
  const shortened = (callback: () => void, ms?: number) =>
    setTimeout(callback, ms === PATIENCE_MS ? SHORT_MS : ms);
  globalThis.setTimeout = Object.assign(shortened, setTimeout) as typeof setTimeout;
  return () => {
    globalThis.setTimeout = setTimeout;
  };
}

/** The names of those that fail, in their order; all run at the same time. One that is never over has failed too. */
async function failing(tests: readonly SuiteTest[]): Promise<string[]> {
  const late = () =>
    new Promise<never>((_, reject) => {
      setTimeout(() => reject(new Error("it is never over")), NEVER_MS).unref();
    });
  const results = await Promise.allSettled(tests.map(({ run }) => Promise.race([run(), late()])));
  return tests.filter((_, index) => results[index]?.status === "rejected").map(({ name }) => name);
}

/** A mistake that a driver may have. */
export interface DriverFault {
  /** What it does wrong. */
  name: string;
  /** The tests that name it. Few others may fail for it. */
  noticed: readonly string[];
  /** Many tests need what it does not do. */
  isBroad?: boolean;
}

/** A suite that fails everywhere tells nobody what is wrong. */
const MAX_OTHERS = 8;
/** One that is never over is waited for. */
const TIMEOUT_MS = 120_000;

/** One test for each fault: the suite `register` makes of it fails where the fault is named. */
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
