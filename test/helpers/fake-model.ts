import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

export interface ChatMessage {
  role: string;
  content?: string | null;
  tool_call_id?: string;
  tool_calls?: { id: string; type: "function"; function: { name: string; arguments: string } }[];
}

/** What a model says next: calls of tools, or its last words. */
export type Turn = { calls: [name: string, args: Record<string, unknown>][] } | { say: string };

export interface FakeModel {
  /** For `OPENAI_BASE_URL`. */
  url: string;
  /** The request bodies, in order. */
  requests: { model: string; messages: ChatMessage[]; tools: { function: { name: string } }[] }[];
  close(): Promise<void>;
}

/**
 * A real HTTP server that speaks OpenAI's chat completions and follows a script instead of a model.
 * `next` sees what the tools answered last, so that it can act on it. Requests without the key are 401,
 * and the first one is answered with 503, as busy endpoints do.
 */
export async function startFakeModel(
  apiKey: string,
  next: (answers: Record<string, unknown>[], step: number) => Turn,
): Promise<FakeModel> {
  const requests: FakeModel["requests"] = [];
  let refused = false;
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const answer = (status: number, body: unknown) => {
      response.writeHead(status, { "content-type": "application/json" });
      response.end(JSON.stringify(body));
    };
    if (request.headers.authorization !== `Bearer ${apiKey}` || request.url !== "/v1/chat/completions") {
      return answer(401, { error: { message: "no" } });
    }
    if (!refused) {
      refused = true;
      return answer(503, { error: { message: "busy" } });
    }
    const body = JSON.parse(Buffer.concat(chunks).toString()) as FakeModel["requests"][number];
    requests.push(body);
    answer(200, { choices: [{ message: messageOf(next(lastAnswers(body.messages), requests.length)) }] });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/`,
    requests,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function messageOf(turn: Turn): ChatMessage {
  if ("say" in turn) return { role: "assistant", content: turn.say };
  return {
    role: "assistant",
    content: null,
    tool_calls: turn.calls.map(([name, args], index) => ({
      id: `call_${index}`,
      type: "function",
      function: { name, arguments: JSON.stringify(args) },
    })),
  };
}

/** What the tools answered since the model last spoke. */
function lastAnswers(messages: readonly ChatMessage[]): Record<string, unknown>[] {
  const spoke = messages.findLastIndex(({ role }) => role === "assistant");
  return messages
    .slice(spoke + 1)
    .filter(({ role }) => role === "tool")
    .map(({ content }) => JSON.parse(content ?? "{}") as Record<string, unknown>);
}
