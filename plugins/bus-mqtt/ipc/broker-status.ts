/** The broker's state, sent to each daemon that connects, and again when it changes. */
export interface BrokerStatus {
  /** Why messages cannot be stored now. */
  problem?: string | undefined;
  /** The port for MQTT clients. */
  port?: number | undefined;
}
