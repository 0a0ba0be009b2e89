// The random fault suite, at length: `npm run test:fault -- [--rounds N] [--seed S] [--without-cgroups]`.
// Without a seed it takes one from the clock, and prints it: the same seed draws the same actions, though
// what they meet may differ.
import { parseArgs } from "node:util";
import { createJiti } from "jiti";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "200" },
    seed: { type: "string", default: String(Date.now() % 2 ** 32) },
    "without-cgroups": { type: "boolean", default: false },
  },
});
const [rounds, seed] = [Number(values.rounds), Number(values.seed)];
const cgroups = !values["without-cgroups"];
const { play } = await createJiti(import.meta.url).import("./random/play.ts");

// An exit ends what was started; a signal alone would not.
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(130));

console.log(`seed ${seed}, ${rounds} rounds, ${cgroups ? "with" : "without"} cgroups`);
const began = performance.now();
try {
  const { agents, exits, lines, events } = await play({ rounds, seed, cgroups, progress: console.log });
  const seconds = Math.round((performance.now() - began) / 1000);
  console.log(
    `nothing lost, nothing double: ${agents} agents made, ${exits} runs ended, ${lines} lines printed, ${events} events told, in ${seconds} s`,
  );
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
