/** Who a client is; decided by the daemon. */
export interface Identity {
  /** As `from` of its messages: `agent:ID` or `operator`. */
  readonly name: string;
  readonly agentId?: string;
  readonly runId?: string;
}

/** What clients may do; decided by the daemon. A rejection ends the connection that asked. */
export interface Guard {
  /** Whose token it is; `undefined`: nobody's. */
  identify(token: string): Promise<Identity | undefined>;
  mayPublish(who: Identity, topic: string): Promise<boolean>;
  maySubscribe(who: Identity, filter: string): Promise<boolean>;
}
