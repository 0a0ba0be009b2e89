/** Handles what the scripts publish on the channel, in the order in which it happened. */
export interface NotificationHandlers {
  onKept(position: number, topic: string): void;
  /** Called for a message with `keep: false`: its place is behind the kept messages up to a position. */
  onTransient(afterPosition: number, topic: string, metadata: string, payload: Buffer): void;
  /** Called when a reader's start has reached the server, where `last` was the last position. */
  onReaderStart(readerId: string, last: number): void;
  /** Called when a message of a group is to be delivered again, now or later. */
  onRedelivery(group: string): void;
  /** Called when a message was acknowledged late, while another member has it. */
  onLateAck(group: string, position: string): void;
  onGroupRemoved(group: string, groupId: string): void;
}

/**
 * Parses a notification and calls its handler. It is JSON, for a transient message followed by a line feed and the
 * payload. Anything else on the channel was published by another program and is ignored.
 */
export function dispatchNotification(notification: Buffer, handlers: NotificationHandlers): void {
  const end = notification.indexOf("\n");
  const [kind, first, second, third] = parse(end < 0 ? notification : notification.subarray(0, end));
  if (first === undefined) return;
  if (kind === "due") handlers.onRedelivery(first);
  if (second === undefined) return;
  if (kind === "kept") handlers.onKept(Number(first), second);
  else if (kind === "begun") handlers.onReaderStart(first, Number(second));
  else if (kind === "settled") handlers.onLateAck(first, second);
  else if (kind === "removed") handlers.onGroupRemoved(first, second);
  else if (kind === "passing" && third !== undefined) {
    handlers.onTransient(Number(first), second, third, notification.subarray(end + 1));
  }
}

function parse(head: Buffer): (string | undefined)[] {
  try {
    const words: unknown = JSON.parse(String(head));
    return Array.isArray(words) && words.every((it) => typeof it === "string") ? words : [];
  } catch {
    return [];
  }
}
