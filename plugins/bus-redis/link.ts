import type { Redis } from "ioredis";
import type { Clock } from "../../core/index.js";
import { redisProblem } from "../_shared/redis/failures.js";

export interface LinkOptions {
  clock: Pick<Clock, "after">;
  /** Where commands are sent. */
  commands: Redis;
  /** Where the channel is listened to. */
  listener: Redis;
  channel: string;
  onDown: () => void;
  onNotice: (notice: Buffer) => void;
}

export type Link = ReturnType<typeof createLink>;

/** After how long a server that refused the channel is asked for it again. */
const AGAIN_MS = 2_000;

/** Both connections as one: it is up while commands can be sent and the channel is listened to. */
export function createLink({ clock, commands, listener, channel, onDown, onNotice }: LinkOptions) {
  let isListening = false;
  let isUp = false;
  let refused: string | undefined;
  let asked: Promise<void> | undefined;

  function look(): void {
    const was = isUp;
    isUp = isListening && commands.status === "ready";
    if (!isUp && was) onDown();
  }

  function listen(): void {
    asked = ask();
  }

  async function ask(): Promise<void> {
    try {
      await listener.subscribe(channel);
      refused = undefined;
      isListening = true;
      look();
    } catch (error) {
      // It is asked again when it is ready again.
      if (listener.status !== "ready") return;
      refused = redisProblem(error).problem;
      clock.after(AGAIN_MS, listen);
    }
  }

  commands.on("ready", look);
  commands.on("close", look);
  listener.on("ready", listen);
  listener.on("close", () => {
    isListening = false;
    look();
  });
  listener.on("messageBuffer", (_channel, notice) => onNotice(notice));

  return {
    isUp: () => isUp,
    /** Resolves when the server has answered whether the channel can be listened to. */
    answered: () => asked,
    /** What is not yet right, in words, while both connections are. */
    problem: () => (isUp ? undefined : (refused ?? "it is not listened to yet")),
  };
}
