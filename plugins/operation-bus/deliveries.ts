import { randomUUID } from "node:crypto";
import { type BusDelivery, type Clock, OpenStarryError } from "../../core/index.js";

interface OpenDelivery {
  delivery: BusDelivery;
  /** Who got it, and alone settles it. */
  principal: string;
  isSettled: boolean;
}

export type Deliveries = ReturnType<typeof createDeliveries>;

/** What was delivered to members of groups, by the token that settles it. */
export function createDeliveries(clock: Pick<Clock, "after">) {
  const open = new Map<string, OpenDelivery>();

  async function settle(token: string, principal: string, how: (delivery: BusDelivery) => Promise<void>) {
    const it = open.get(token);
    if (it?.principal !== principal) {
      throw new OpenStarryError("delivery_is_over", {
        detail: "this token settles nothing: its time was over, or the stream that it came by has ended",
        hint: "the message is delivered again unless it was settled before; settle it by its new token",
      });
    }
    // Asked again because the answer got lost: it is as it was asked for.
    if (it.isSettled) return;
    await how(it.delivery);
    it.isSettled = true;
  }

  return {
    ack: (token: string, principal: string) => settle(token, principal, (it) => it.ack()),
    nack: (token: string, principal: string, delayMs: number) =>
      settle(token, principal, (it) => it.nack(delayMs)),
    /** The deliveries of one stream: their tokens end with their time, or with the stream. */
    ofStream(principal: string, ackWaitMs: number) {
      const cancels = new Map<string, () => void>();
      return {
        add(delivery: BusDelivery): string {
          const token = randomUUID();
          open.set(token, { delivery, principal, isSettled: false });
          const forget = () => {
            open.delete(token);
            cancels.delete(token);
          };
          cancels.set(token, clock.after(ackWaitMs, forget));
          return token;
        },
        end(): void {
          for (const [token, cancel] of cancels) {
            cancel();
            open.delete(token);
          }
        },
      };
    },
  };
}
