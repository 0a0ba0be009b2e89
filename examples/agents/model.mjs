/** With a model: it chooses tool calls until it has none left to make. */
const MOST_STEPS = 40;
const REQUEST_TIMEOUT_MS = 120_000;
const MOST_ATTEMPTS = 4;

const INSTRUCTIONS =
  "You are the master of other agents. Reach the goal by starting agents with your tools: look at the " +
  "templates, start one agent for each part of the work, wait for all of them, read their results, and " +
  "remove them with agent_stop and remove: true. When a tool answers ok: false, follow its hint. " +
  "Agents that already exist are left over from an earlier run: use them or remove them. When everything is done, " +
  "answer with a short report of the findings, in plain text.";

/**
 * Talks to any endpoint with OpenAI's chat completions, and returns the model's final message.
 *
 * @param {{
 *   goal: string,
 *   tool: import("openstarry-daemon/agent-manager-tool").AgentManagerTool,
 *   say: (text: string) => void,
 *   baseUrl: string,
 *   apiKey: string,
 *   model?: string,
 * }} how
 */
export async function followModel({ goal, tool, say, baseUrl, apiKey, model = "gpt-4o-mini" }) {
  const tools = tool.openAiTools();
  const messages = [
    { role: "system", content: INSTRUCTIONS },
    { role: "user", content: goal },
  ];
  for (let step = 0; step < MOST_STEPS; step++) {
    const message = await complete({ baseUrl, apiKey, body: { model, messages, tools } });
    messages.push(message);
    const calls = message.tool_calls ?? [];
    if (calls.length === 0) return message.content ?? "";
    for (const { id, function: called } of calls) {
      const result = await tool.execute(called.name, called.arguments);
      say(`${called.name} ${called.arguments} -> ${result.ok ? "ok" : result.error.code}`);
      messages.push({ role: "tool", tool_call_id: id, content: JSON.stringify(result) });
    }
  }
  throw new Error(`the model did not finish within ${MOST_STEPS} steps`);
}

/** Gets one message from the model. Retries when the endpoint is unreachable, too busy, or fails. */
async function complete({ baseUrl, apiKey, body }) {
  const url = `${baseUrl.replace(/\/+$/, "")}/chat/completions`;
  for (let attempt = 1; ; attempt++) {
    const { message, problem, mayPass } = await ask(url, apiKey, body);
    if (message) return message;
    if (!mayPass || attempt === MOST_ATTEMPTS) throw new Error(`${url}: ${problem}`);
    await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** attempt));
  }
}

async function ask(url, apiKey, body) {
  let response;
  try {
    response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${apiKey}` },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    });
  } catch (error) {
    return { problem: `no answer: ${error.cause?.message ?? error.message}`, mayPass: true };
  }
  if (!response.ok) {
    const problem = `answered ${response.status}: ${(await response.text()).slice(0, 300)}`;
    return { problem, mayPass: response.status === 429 || response.status >= 500 };
  }
  const { choices } = await response.json();
  return { message: choices?.[0]?.message, problem: "answered without a message", mayPass: false };
}
