import { randomUUID } from "node:crypto";
import { type BusDelivery, type Clock, OpenStarryError } from "../../core/index.js";

interface OpenDelivery {
  /** What settles it, without the message: that may be large. Absent once it is settled. */
  settle?: Pick<BusDelivery, "ack" | "nack"> | undefined;
  /** Who got it, and alone settles it. */
  principal: string;
}

/** Of so many that are settled each stream remembers it, so that asking twice is as good as once. */
const MAX_SETTLED = 1_000;

export type Deliveries = ReturnType<typeof createDeliveries>;

/** What was delivered to members of groups, by the token that settles it. */
export function createDeliveries(clock: Pick<Clock, "after">) {
  const open = new Map<string, OpenDelivery>();

  type How = (delivery: Pick<BusDelivery, "ack" | "nack">) => Promise<void>;

  async function settle(token: string, principal: string, how: How) {
    const it = open.get(token);
    if (it?.principal !== principal) {
      throw new OpenStarryError("delivery_is_over", {
        detail: "this token settles nothing: its time was over, or the stream that it came by has ended",
        hint: "the message is delivered again unless it was settled before; settle it by its new token",
      });
    }
    // Asked again because the answer got lost: it is as it was asked for.
    if (!it.settle) return;
    await how(it.settle);
    it.settle = undefined;
  }

  return {
    ack: (token: string, principal: string) => settle(token, principal, (it) => it.ack()),
    nack: (token: string, principal: string, delayMs: number) =>
      settle(token, principal, (it) => it.nack(delayMs)),
    /** The deliveries of one stream: their tokens end with their time, or with the stream. */
    ofStream(principal: string, ackWaitMs: number) {
      const cancels = new Map<string, () => void>();

      /** What is not settled is bounded by what a member may have in flight. */
      function makeRoom(): void {
        if (cancels.size < 2 * MAX_SETTLED) return;
        const settled = [...cancels.keys()].filter((token) => !open.get(token)?.settle);
        for (const token of settled.slice(0, -MAX_SETTLED)) {
          cancels.get(token)?.();
          cancels.delete(token);
          open.delete(token);
        }
      }

      return {
        add({ ack, nack }: BusDelivery): string {
          const token = randomUUID();
          makeRoom();
          open.set(token, { settle: { ack, nack }, principal });
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
