import { closeSync } from "node:fs";
import type { SocketHandover } from "../../core/contracts/plugin.js";

/** The listening sockets of a daemon, handed over by name from predecessor to successor. */
export interface HandedSockets extends SocketHandover {
  /** What the plugins offer to a successor. */
  readonly offered: ReadonlyMap<string, number>;
  /** Records whether a successor holds them now. */
  setHandedOver(handedOver: boolean): void;
  /** Closes sockets of the predecessor that no plugin claimed. */
  closeUnclaimed(): void;
}

export function createHandedSockets(inherited: Readonly<Record<string, number>> = {}): HandedSockets {
  const unclaimed = new Map(Object.entries(inherited));
  const offered = new Map<string, number>();
  let isHandedOver = false;
  return {
    offered,
    inherited(name) {
      const fd = unclaimed.get(name);
      unclaimed.delete(name);
      return fd;
    },
    offer: (name, fd) => void offered.set(name, fd),
    handedOver: () => isHandedOver,
    setHandedOver(handedOver) {
      isHandedOver = handedOver;
      if (!handedOver) offered.clear();
    },
    closeUnclaimed() {
      for (const fd of unclaimed.values()) closeSync(fd);
      unclaimed.clear();
    },
  };
}
