/**
 * A master agent: it reaches its goal by starting other agents and combining their results. It uses only
 * AgentManagerTool, that tool's client for the message bus and the state store, and the environment that the daemon
 * gave it.
 *
 * With OPENAI_API_KEY and OPENAI_BASE_URL set, a model chooses the tool calls; otherwise it follows a fixed plan. After
 * its report it keeps running and sends heartbeats.
 */
import { readFile } from "node:fs/promises";
import { createAgentManagerTool } from "openstarry-daemon/agent-manager-tool";
import { followModel } from "./model.mjs";
import { followPlan } from "./plan.mjs";

const HEARTBEAT_MS = 10_000;

const tool = createAgentManagerTool();
let status = "starting";

function heartbeat() {
  return tool.client.heartbeat({ status }).catch((error) => console.error(`no heartbeat: ${error.message}`));
}

function say(text) {
  console.log(text);
}

const paramsFile = process.env["OPENSTARRY_PARAMS_FILE"];
if (!paramsFile) {
  console.error("this is an agent: start it through the daemon, for example with: npm start");
  process.exit(1);
}
const { goal } = JSON.parse(await readFile(paramsFile, "utf8"));

setInterval(heartbeat, HEARTBEAT_MS);
status = "working";
await heartbeat();

const { OPENSTARRY_AGENT_ID: agentId, OPENSTARRY_RUN_ID: runId } = process.env;
const { OPENAI_BASE_URL: baseUrl, OPENAI_API_KEY: apiKey, OPENAI_MODEL: model } = process.env;
say(`goal: ${goal}`);
if (baseUrl && apiKey) {
  say(`a model chooses what to do (${model ?? "the endpoint's default"})`);
  const report = await followModel({ goal, tool, say, baseUrl, apiKey, model });
  say(`report: ${report}`);
} else {
  say("no model is configured (OPENAI_BASE_URL, OPENAI_API_KEY): a fixed plan is followed");
  await followPlan({ tool, self: { agentId, runId }, say });
}
status = "done, standing by";
await heartbeat();
say("done; standing by");
