import { MAX_PAYLOAD_BYTES } from "../../../kit/topic-schemas.js";

/** A payload with its topic. */
export const MAX_PUBLISH_BYTES = MAX_PAYLOAD_BYTES + 1_024;
/** Of other packets, and of the first one, which comes from nobody known yet. */
export const MAX_PACKET_BYTES = 64 * 2 ** 10;
export const CONNECT_TIMEOUT_MS = 10_000;
/** A peer from which nothing comes is asked for a sign of life by TCP. */
export const KEEP_ALIVE_MS = 60_000;
export const MAX_CLIENT_ID_BYTES = 128;

export const MAX_CONNECTIONS = 1_000;
/** Of an agent: the operator is trusted. */
export const MAX_CONNECTIONS_OF_ONE = 32;
export const MAX_SUBSCRIPTIONS_OF_CLIENT = 64;
/** Of one identity, connected or not. A further one takes the place of the one that was away for longest. */
export const MAX_SESSIONS_OF_ONE = 8;

/** Messages on their way to a client, for each of its subscriptions, before it has acknowledged one. */
export const WINDOW = 32;
/** A member of a group that works on one message gets no other one meanwhile. */
export const SHARED_WINDOW = 1;
/**
 * A client that is there keeps what it has not acknowledged; when it goes it is delivered again at once. This is
 * only the longest that a bus can wait.
 */
export const ACK_WAIT_MS = 86_400_000;

export const MAX_RETAINED = { messages: 10_000, bytes: 64 * 2 ** 20 };
export const MAX_RETAINED_OF_ONE = { messages: 256, bytes: 4 * 2 ** 20 };
/** Sessions with messages of QoS 2 that have not been released, while their clients are away. */
export const MAX_UNRELEASED_SESSIONS = 1_000;
/** Such messages of all. */
export const MAX_UNRELEASED = 100_000;
