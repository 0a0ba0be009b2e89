import { readFileSync } from "node:fs";
import { type ClientRequest, request } from "node:http";
import { join } from "node:path";
import type { DaemonEvent } from "../../../core/index.js";

/** Follows everything that happens, across the deaths of daemons, by Last-Event-ID. */
export interface Follower {
  readonly events: readonly DaemonEvent[];
  /** What came in another order, twice, or not at all. */
  readonly complaints: readonly string[];
  /** Connects to the daemon that lives now. */
  connect(): void;
  /** Breaks the connection off in the middle. */
  breakOff(): void;
}

export function createFollower(home: string): Follower {
  const events: DaemonEvent[] = [];
  const complaints: string[] = [];
  let asked: ClientRequest | undefined;

  function take(block: string) {
    const field = (name: string) => new RegExp(`^${name}: ?(.*)$`, "m").exec(block)?.[1];
    const data = field("data");
    if (data === undefined) return;
    const last = events.at(-1)?.id ?? 0;
    const [id, event] = [Number(field("id")), field("event")];
    if (id !== last + 1) complaints.push(`after event ${last} came ${event} ${id}: ${data}`);
    if (event !== "gap" && event !== "error") events.push({ id, ...JSON.parse(data) } as DaemonEvent);
  }

  function breakOff() {
    asked?.destroy();
    asked = undefined;
  }

  return {
    events,
    complaints,
    breakOff,
    connect() {
      breakOff();
      const { port } = JSON.parse(readFileSync(join(home, "daemon.json"), "utf8"));
      const headers = {
        authorization: `Bearer ${readFileSync(join(home, "token"), "utf8").trim()}`,
        "last-event-id": String(events.at(-1)?.id ?? 0),
      };
      const mine = request(
        { host: "127.0.0.1", port, path: "/events", headers, agent: false },
        (response) => {
          if (response.statusCode !== 200) complaints.push(`the stream was answered ${response.statusCode}`);
          let text = "";
          response.setEncoding("utf8").on("data", (chunk: string) => {
            if (asked !== mine) return;
            text += chunk;
            for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
              take(text.slice(0, end));
              text = text.slice(end + 2);
            }
          });
          response.on("error", () => {});
        },
      );
      // The daemon is killed all the time; whoever waits for an event will miss it.
      mine.on("error", () => {});
      mine.end();
      asked = mine;
    },
  };
}
