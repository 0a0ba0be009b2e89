// The random fault suite, at length: `npm run test:fault -- [--rounds N] [--seed S]`. Without a seed it
// takes one from the clock, and prints it: the same seed draws the same actions, though at other moments.
import { parseArgs } from "node:util";
import { createJiti } from "jiti";

const { values } = parseArgs({ options: { rounds: { type: "string" }, seed: { type: "string" } } });
const rounds = Number(values.rounds ?? 200);
const seed = Number(values.seed ?? Date.now() % 2 ** 32);
const { play } = await createJiti(import.meta.url).import("./random/play.ts");

console.log(`seed ${seed}, ${rounds} rounds`);
const began = performance.now();
try {
  const { agents, exits, lines, events } = await play({ rounds, seed, progress: console.log });
  const seconds = Math.round((performance.now() - began) / 1000);
  console.log(
    `nothing lost, nothing double: ${agents} agents made, ${exits} runs ended, ${lines} lines printed, ${events} events told, in ${seconds} s`,
  );
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
