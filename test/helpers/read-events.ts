import { request } from "node:http";

export interface SentEvent {
  id: number;
  event: string;
  data: unknown;
}

/** Reads server-sent events until there are enough, and breaks the connection. */
export function readEvents(options: {
  at: number;
  token: string;
  path: string;
  lastEventId: number;
  until: (events: readonly SentEvent[]) => boolean;
}): Promise<SentEvent[]> {
  const { at, token, path, lastEventId, until } = options;
  return new Promise((resolve, reject) => {
    const events: SentEvent[] = [];
    const headers = { authorization: `Bearer ${token}`, "last-event-id": String(lastEventId) };
    const asked = request({ host: "127.0.0.1", port: at, path, headers, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk) => {
        text += chunk;
        for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
          const event = parse(text.slice(0, end));
          text = text.slice(end + 2);
          if (event && !until(events)) events.push(event);
        }
        if (!until(events)) return;
        asked.destroy();
        resolve(events);
      });
      response.on("end", () => reject(new Error(`the stream ended after ${JSON.stringify(events)}`)));
    });
    asked.on("error", reject);
    asked.setTimeout(20_000, () => asked.destroy(new Error(`only ${JSON.stringify(events)} came`)));
    asked.end();
  });
}

function parse(block: string): SentEvent | undefined {
  const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(block)?.[1];
  const [id, event, data] = [field("id"), field("event"), field("data")];
  return data === undefined ? undefined : { id: Number(id), event: event ?? "", data: JSON.parse(data) };
}
