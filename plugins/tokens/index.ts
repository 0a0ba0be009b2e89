import { join } from "node:path";
import { z } from "zod";
import { type Authenticator, authenticator, definePlugin, OpenStarryError } from "../../core/index.js";
import { readOrCreateSecret } from "../kit/secret-file.js";
import { decideAccess } from "./access.js";
import { type OperatorToken, openOperatorToken } from "./operator-token.js";
import { createRunTokens, type RunTokens } from "./run-token.js";

/** The operator's token and those of runs, and the decision who may do what. */
export default definePlugin({
  name: "tokens",
  apiVersion: 1,
  provides: [authenticator],
  options: z.strictObject({}),
  setup(ctx) {
    let opened: { operator: OperatorToken; runs: RunTokens } | undefined;
    const tokens = () => {
      if (opened) return opened;
      throw new OpenStarryError("internal", { detail: "tokens were asked for before the plugin started" });
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
    ctx.hooks.onRequest.tap({ name: "access", stage: "FIRST" }, (request) =>
      decideAccess(request, ctx.agents),
    );
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
