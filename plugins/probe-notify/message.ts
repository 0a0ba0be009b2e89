/** What one datagram of sd_notify(3) says, as far as it is acted on. */
export interface Message {
  readonly ready: boolean;
  readonly stopping: boolean;
  /** `WATCHDOG=1` or `WATCHDOG=trigger`. */
  readonly watchdog: "alive" | "trigger" | undefined;
  readonly status: string | undefined;
  /** `EXTEND_TIMEOUT_USEC`, in milliseconds. */
  readonly extendMs: number | undefined;
  /** It claims that another process is the agent. */
  readonly mainPid: string | undefined;
}

/** What the API takes as a status. */
const MAX_STATUS_CHARACTERS = 1_000;
const USEC_PER_MS = 1_000;

/** Lines of `NAME=value`; of two with one name the later counts, and names that are not known are passed over. */
export function parseMessage(text: string): Message {
  const fields = new Map<string, string>();
  for (const line of text.split("\n")) {
    const end = line.indexOf("=");
    if (end > 0) fields.set(line.slice(0, end), line.slice(end + 1));
  }
  const watchdog = fields.get("WATCHDOG");
  const extend = fields.get("EXTEND_TIMEOUT_USEC");
  return {
    ready: fields.get("READY") === "1",
    stopping: fields.get("STOPPING") === "1",
    watchdog: watchdog === "1" ? "alive" : watchdog === "trigger" ? "trigger" : undefined,
    status: fields.get("STATUS")?.slice(0, MAX_STATUS_CHARACTERS),
    extendMs: extend && /^\d{1,15}$/.test(extend) ? Number(extend) / USEC_PER_MS : undefined,
    mainPid: fields.get("MAINPID"),
  };
}
