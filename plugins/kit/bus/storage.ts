import type { BusMessage } from "../../../core/index.js";

/** The kept messages in their order, at rising positions that are never given out twice. */
export interface KeptLog {
  /**
   * Places a message behind all that were placed before. `kept` resolves when it is as safe as the log keeps
   * messages, and can be read; it rejects with `bus_unavailable`.
   */
  append(message: BusMessage): { position: number; kept: Promise<void> };
  /** The last position that was given out. */
  last(): number;
  /** Up to this position everything can be read that ever will be. */
  newest(): number;
  /** How many are kept. */
  count(): number;
  at(position: number): BusMessage | undefined;
  /**
   * The first message for a filter after one position, up to and including another. One look is short:
   * `position` is that of the message, or without one how far it looked.
   */
  find(filter: string, after: number, upTo: number): Found;
  drop(filter: string): Promise<void>;
}

export interface Found {
  position: number;
  message?: BusMessage | undefined;
}

export interface GroupName {
  readonly filter: string;
  readonly group: string;
  /** Another group of the same name, later, has another one. */
  readonly id: string;
}

/** Where a group stands: behind `cursor`, and before it with what is unsettled. */
export interface GroupRecord extends GroupName {
  cursor: number;
  /** Positions, and how often each was delivered. */
  unsettled: readonly (readonly [position: number, attempt: number])[];
}

export interface GroupChange {
  cursor: number;
  /** Positions that are unsettled with so many attempts, or with `undefined` are not. */
  unsettled: readonly (readonly [position: number, attempt: number | undefined])[];
}

/** Which groups there are, and where they stand. */
export interface GroupBook {
  /** Those that were used longest ago first. */
  all(): readonly GroupRecord[];
  /** Makes it known, or changes what is known. Rejects with `bus_unavailable`; then nothing has changed. */
  save(name: GroupName, change: GroupChange): Promise<void>;
  remove(name: GroupName): Promise<void>;
}
