import { isOpenStarryError } from "../../../core/contracts/errors.js";
import { followEvents } from "./event-stream.js";
import type { Transport } from "./transport.js";
import type * as Wire from "./wire.js";

/** `GET /events`, across lost connections. */
export async function* events(
  transport: Transport,
  options: Wire.EventQuery,
): AsyncGenerator<Wire.DaemonEvent | Wire.EventGap> {
  const { lastEventId, agent_id, type, ...control } = options;
  const from = lastEventId === undefined ? {} : { lastEventId: String(lastEventId) };
  const follow = { path: "/events", query: { agent_id, type }, ...control, ...from };
  for await (const { data } of followEvents(transport, follow)) {
    yield data as Wire.DaemonEvent | Wire.EventGap;
  }
}

/** `GET /agents/{id}/logs?follow=true`, across lost connections, until the agent is deleted. */
export async function* followLogs(
  transport: Transport,
  agentId: string,
  { cursor, ...query }: Wire.LogQuery,
  options: Wire.FollowOptions,
): AsyncGenerator<Wire.LogLine> {
  // In the query it would count again after every lost connection.
  const from = cursor === undefined ? {} : { lastEventId: cursor };
  const path = `/agents/${encodeURIComponent(agentId)}/logs`;
  let seen = false;
  try {
    for await (const { event, data } of followEvents(transport, {
      path,
      query: { ...query, follow: true },
      ...options,
      ...from,
    })) {
      seen = true;
      if (event === "line") yield data as Wire.LogLine;
    }
  } catch (error) {
    // Deleted while it was followed: there is nothing more to come.
    if (!seen || !isOpenStarryError(error) || error.code !== "agent_not_found") throw error;
  }
}
