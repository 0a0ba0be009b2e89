import { MAX_PAYLOAD_BYTES } from "../../../kit/topic-schemas.js";

/** A payload with its topic. */
export const MAX_PUBLISH_BYTES = MAX_PAYLOAD_BYTES + 1_024;
/** For all other packets, and for the first one, whose sender is not authenticated yet. */
export const MAX_PACKET_BYTES = 64 * 2 ** 10;
export const CONNECT_TIMEOUT_MS = 10_000;
/** How long a connection may be silent before TCP probes it. */
export const KEEP_ALIVE_MS = 60_000;
export const MAX_CLIENT_ID_BYTES = 128;

export const MAX_CONNECTIONS = 1_000;
/** Not for the operator, who is trusted. */
export const MAX_CONNECTIONS_PER_AGENT = 32;
export const MAX_SUBSCRIPTIONS_PER_CLIENT = 64;
/** Connected or not. A further session replaces the one that was not used for the longest time. */
export const MAX_SESSIONS_PER_IDENTITY = 8;

/** How many unacknowledged messages each subscription sends to its client. */
export const WINDOW = 32;
/** The same for a member of a consumer group: while it works on one message, others get the next ones. */
export const SHARED_WINDOW = 1;
/**
 * The longest wait that a bus allows. A connected client may take any time to acknowledge a message; when it
 * disconnects, the message is delivered again at once.
 */
export const ACK_WAIT_MS = 86_400_000;

export const MAX_RETAINED = { messages: 10_000, bytes: 64 * 2 ** 20 };
export const MAX_RETAINED_PER_IDENTITY = { messages: 256, bytes: 4 * 2 ** 20 };
/** For how many sessions QoS 2 messages in flight are remembered, connected or not. */
export const MAX_QOS2_INFLIGHT_SESSIONS = 1_000;
/** For all sessions together. */
export const MAX_QOS2_INFLIGHT = 100_000;
