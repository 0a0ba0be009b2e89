/** What is done without a model: two files are analysed at the same time. */
const TEMPLATE = "DataAnalystAgent_v1";
const JOBS = [
  { agent_id: "weather_analyst", params: { file: "data/weather.csv", group_by: "location" } },
  { agent_id: "airports_analyst", params: { file: "data/airports.csv", group_by: "state" } },
];

/**
 * @param {{ tool: import("openstarry-daemon/agent-manager-tool").AgentManagerTool, say: (text: string) => void }} how
 */
export async function followPlan({ tool, say }) {
  const { templates } = await call(tool, "agent_templates");
  if (!templates.some(({ template_id }) => template_id === TEMPLATE)) {
    throw new Error(
      `there is no template ${TEMPLATE}; there are: ${templates.map((it) => it.template_id).join(", ")}`,
    );
  }
  for (const job of JOBS) await startOrTakeOver(tool, say, job);
  const ids = JOBS.map(({ agent_id }) => agent_id);
  await waitFor(tool, ids);
  for (const id of ids) await reportAndRemove(tool, say, id);
}

/** After a crash of this master its workers are still there: what works, or has done its work, is kept. */
async function startOrTakeOver(tool, say, job) {
  const started = await tool.execute("agent_start", { template_id: TEMPLATE, ...job });
  if (started.ok) return say(`started ${job.agent_id} (pid ${started.data.pid ?? "to come"})`);
  if (started.error.code !== "agent_exists") throw failure("agent_start", started.error);
  const { agent_id } = job;
  const { state, last_exit: exit } = await call(tool, "agent_status", { agent_id });
  if (exit === undefined || exit.success)
    return say(`${agent_id} is there already (${state}); taking it over`);
  say(`${agent_id} is there already (${state}); replacing it`);
  await call(tool, "agent_stop", { agent_id, remove: true });
  return startOrTakeOver(tool, say, job);
}

async function waitFor(tool, ids) {
  for (;;) {
    const { done } = await call(tool, "agent_wait", { agent_ids: ids, timeout: "30s" });
    if (done) return;
  }
}

async function reportAndRemove(tool, say, id) {
  const answer = await tool.execute("agent_result", { agent_id: id });
  if (answer.ok) {
    const { file, rows, findings } = answer.data.result;
    say(`${file}: ${rows} rows`);
    for (const finding of findings) say(`  - ${finding}`);
  } else {
    say(`${id} left no result: ${answer.error.hint}`);
    const { lines } = await call(tool, "agent_logs", { agent_id: id, tail: 5 });
    say(JSON.stringify(lines));
  }
  await call(tool, "agent_stop", { agent_id: id, remove: true });
  say(`removed ${id}`);
}

async function call(tool, name, args) {
  const result = await tool.execute(name, args);
  if (result.ok) return result.data;
  throw failure(name, result.error);
}

function failure(name, { code, detail, hint }) {
  return new Error(`${name}: ${detail} (${code}); ${hint}`);
}
