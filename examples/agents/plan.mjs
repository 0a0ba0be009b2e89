/**
 * Without a model: analyses two files at the same time. Each analyst puts its findings into the state store and sends
 * a message to the master's inbox; the master copies the findings to the shared namespace.
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
  const reported = reportFindings({ tool, say, inbox, self });
  for (const job of JOBS) await startOrReuse(tool, say, job);
  await waitFor(tool, IDS);
  // Comes after all their messages: a bus has one order.
  await tool.client.bus.publish(inbox, { over: self.runId });
  await reported;
}

/**
 * Reads the analysts' messages until the message that all have ended, then reports. Acknowledges them only after that:
 * if this master dies before, its next run gets them again.
 */
async function reportFindings({ tool, say, inbox, self: { agentId, runId } }) {
  /** The last delivery from each sender. All others are acknowledged at once, so that no agent can fill this inbox. */
  const latest = new Map();
  const options = { group: "master", after: "0", maxInFlight: 100, ackWaitMs: 3_600_000 };
  for await (const delivery of tool.client.bus.consume(inbox, options)) {
    const { from, payload, position } = delivery.message;
    const isOver = from === `agent:${agentId}` && payload?.over === runId;
    if (!isOver && !IDS.some((id) => from === `agent:${id}`)) {
      // If that fails, it is redelivered.
      await delivery.ack().catch(() => {});
      continue;
    }
    // The last message of each sender counts; a redelivered one is the same message.
    const before = latest.get(from);
    latest.set(from, delivery);
    if (before && before.message.position !== position) await before.ack();
    if (!isOver) continue;
    for (const id of IDS) await reportAndRemove(tool, say, id, latest.get(`agent:${id}`)?.message);
    for (const { ack } of latest.values()) await ack();
    return;
  }
}

/** Starts a worker. After a crash of this master its workers still exist: those that work or succeeded are kept. */
async function startOrReuse(tool, say, job) {
  const started = await tool.execute("agent_start", { template_id: TEMPLATE, ...job });
  if (started.ok) return say(`started ${job.agent_id} (pid ${started.data.pid ?? "to come"})`);
  if (started.error.code !== "agent_exists") throw failure("agent_start", started.error);
  const { agent_id } = job;
  const { state, last_exit: exit } = await call(tool, "agent_status", { agent_id });
  if (exit === undefined || exit.success) return say(`${agent_id} already exists (${state}); using it`);
  say(`${agent_id} already exists (${state}); replacing it`);
  await call(tool, "agent_stop", { agent_id, remove: true });
  return startOrReuse(tool, say, job);
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
    // An agent's own namespace is deleted with it.
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
