import { join } from "node:path";
import { z } from "zod";
import { type Authenticator, authenticator, definePlugin, OpenStarryError } from "../../core/index.js";
import { readOrCreateSecret } from "../kit/secret-file.js";
import { type OperatorToken, openOperatorToken } from "./operator-token.js";
import { createRunTokens, type RunTokens } from "./run-token.js";

/** Turns the operator's token and the tokens of runs into principals. What a principal may do is an authorizer's. */
export default definePlugin({
  name: "authenticator-tokens",
  apiVersion: 1,
  provides: [authenticator],
  options: z.strictObject({}),
  setup(ctx) {
    let opened: { operator: OperatorToken; runs: RunTokens } | undefined;
    const tokens = () => {
      if (opened) return opened;
      throw new OpenStarryError("internal", { detail: "a token was checked before the plugin started" });
    };
    const provided: Authenticator = {
      authenticate(token) {
        // The operator's token holds no dot.
        if (!token.includes(".")) {
          return tokens().operator.matches(token) ? { kind: "operator", id: "operator" } : undefined;
        }
        const agent = tokens().runs.agentOf(token);
        if (agent?.run_id === undefined) return undefined;
        return {
          kind: "agent",
          id: `agent:${agent.agent_id}`,
          agentId: agent.agent_id,
          runId: agent.run_id,
        };
      },
      mint: ({ runId }) => tokens().runs.mint(runId),
    };
    ctx.provide(authenticator, provided);
    return {
      start() {
        const onProblem = (problem: string | undefined) =>
          problem === undefined ? ctx.daemon.recovered() : ctx.daemon.degraded(problem);
        opened = {
          operator: openOperatorToken({ path: join(ctx.dataDir, "token"), onProblem }),
          runs: createRunTokens(readOrCreateSecret(join(ctx.dataDir, "run-token.key")), ctx.agents.byRun),
        };
      },
    };
  },
});
