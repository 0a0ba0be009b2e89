import { fileURLToPath } from "node:url";
import type { TestDaemon } from "./daemon.js";
import { waitFor } from "./wait-for.js";

/** What a template needs to run one of `test/fixtures/agents`, `.sh` or `.mjs`. */
export function fixtureAgent(file: string, ...args: string[]): { command: string; args: string[] } {
  const path = fileURLToPath(new URL(`../fixtures/agents/${file}`, import.meta.url));
  return { command: file.endsWith(".mjs") ? process.execPath : "sh", args: [path, ...args] };
}

/** The number behind this word in what the agent printed; waits for it. */
export function printedPid({ client }: TestDaemon, agentId: string, word: string): Promise<number> {
  return waitFor(
    async () => {
      const { items } = await client.agents.logs(agentId);
      const line = items.find(({ text }) => text?.startsWith(`${word} `))?.text;
      return line && Number(line.slice(word.length + 1));
    },
    { what: `a line "${word} PID" of ${agentId}` },
  );
}
