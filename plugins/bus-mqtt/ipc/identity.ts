/** Who an MQTT client is. The daemon decides it by the client's token. */
export interface Identity {
  /** The publisher's name in messages (`from`): `agent:ID` or `operator`. */
  readonly name: string;
  readonly agentId?: string;
  readonly runId?: string;
}
