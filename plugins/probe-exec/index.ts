import { z } from "zod";
import {
  definePlugin,
  type ExitStatus,
  OpenStarryError,
  type PluginContext,
  type ProbeRun,
  probe,
  spawner,
} from "../../core/index.js";
import { pollingProbe } from "../kit/probe-loop.js";

const text = () =>
  z
    .string()
    .max(4_096)
    .refine((it) => !it.includes("\0"), "it holds a NUL character");

const options = { command: text().min(1), args: z.array(text()).max(100).default([]) };

/** The probe `exec`: a command beside the agent, by the agent's own spawner, ends with 0. */
export default definePlugin({
  name: "probe-exec",
  apiVersion: 1,
  requires: [spawner],
  provides: [probe],
  options: z.strictObject({}),
  setup(ctx) {
    ctx.provide(
      probe,
      pollingProbe(ctx, {
        name: "exec",
        options,
        check: (run, { command, args }, signal) => succeeds(ctx, run, [command, ...args], signal),
      }),
    );
  },
});

async function succeeds(
  ctx: PluginContext,
  { agent, runId }: ProbeRun,
  argv: readonly string[],
  signal: AbortSignal,
): Promise<string | undefined> {
  const found = ctx.use(spawner).get(agent.spawner);
  if (!found?.exec) {
    throw new OpenStarryError("spawner_not_found", {
      detail: `the spawner "${agent.spawner}" runs no commands beside an agent`,
      hint: "choose another type of probe for this agent",
    });
  }
  const status = await found.exec({ agentId: agent.agent_id, runId }, argv, signal);
  return status.kind === "exited" && status.code === 0 ? undefined : `${argv[0]} ${inWords(status)}`;
}

/** As a shell has it, and POSIX with it. */
const NOT_EXECUTED: Readonly<Record<number, string>> = {
  126: " (it cannot be executed)",
  127: " (there is no such command)",
};

function inWords(status: ExitStatus): string {
  if (status.kind === "exited") return `exited with ${status.code}${NOT_EXECUTED[status.code] ?? ""}`;
  return status.kind === "signaled" ? `was ended by ${status.signal}` : "could not be followed";
}
