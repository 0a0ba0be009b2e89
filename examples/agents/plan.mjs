/**
 * What is done without a model: two files are analysed at the same time. Each analyst leaves what it found in the
 * state store, and says so in the master's inbox on the message bus; the master puts it where everybody finds it.
 */
const TEMPLATE = "DataAnalystAgent_v1";
const JOBS = [
  { agent_id: "weather_analyst", params: { file: "data/weather.csv", group_by: "location" } },
  { agent_id: "airports_analyst", params: { file: "data/airports.csv", group_by: "state" } },
];
const IDS = JOBS.map(({ agent_id }) => agent_id);

/**
 * @param {{
 *   tool: import("openstarry-daemon/agent-manager-tool").AgentManagerTool,
 *   self: { agentId: string, runId: string },
 *   say: (text: string) => void,
 * }} how
 */
export async function followPlan({ tool, self, say }) {
  const { templates } = await call(tool, "agent_templates");
  if (!templates.some(({ template_id }) => template_id === TEMPLATE)) {
    throw new Error(
      `there is no template ${TEMPLATE}; there are: ${templates.map((it) => it.template_id).join(", ")}`,
    );
  }
  const inbox = `agents/${self.agentId}/inbox`;
  const reported = reportWhatIsTold({ tool, say, inbox, self });
  for (const job of JOBS) await startOrTakeOver(tool, say, job);
  await waitFor(tool, IDS);
  // Behind everything that they have said: a bus has one order.
  await tool.client.bus.publish(inbox, { over: self.runId });
  await reported;
}

/**
 * Reads what the analysts tell, until the word that all are over; then reports. Settled only after that: should
 * this master die before, its next run is told again.
 */
async function reportWhatIsTold({ tool, say, inbox, self: { agentId, runId } }) {
  /** By who said it; the rest is settled at once, so that nobody can fill this inbox. */
  const told = new Map();
  const options = { group: "master", after: "0", maxInFlight: 100, ackWaitMs: 3_600_000 };
  for await (const delivery of tool.client.bus.consume(inbox, options)) {
    const { from, payload, position } = delivery.message;
    const isOver = from === `agent:${agentId}` && payload?.over === runId;
    if (!isOver && !IDS.some((id) => from === `agent:${id}`)) {
      // Should it not be settled, it comes again.
      await delivery.ack().catch(() => {});
      continue;
    }
    // Of each the last word counts; what is delivered again is the same word.
    const before = told.get(from);
    told.set(from, delivery);
    if (before && before.message.position !== position) await before.ack();
    if (!isOver) continue;
    for (const id of IDS) await reportAndRemove(tool, say, id, told.get(`agent:${id}`)?.message);
    for (const { ack } of told.values()) await ack();
    return;
  }
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

async function reportAndRemove(tool, say, id, message) {
  const { state } = tool.client;
  const entry = message && (await state.get(`agent:${id}`, String(message.payload?.key)));
  if (entry) {
    const { file, rows, findings } = entry.value;
    say(`${file}: ${rows} rows`);
    for (const finding of findings) say(`  - ${finding}`);
    // What is an agent's own goes with it.
    await state.put("shared", `analyses/${file}`, entry.value);
  } else {
    say(`${id} left no result`);
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
