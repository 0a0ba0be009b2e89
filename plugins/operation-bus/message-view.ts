import type { BusMessage } from "../../core/index.js";

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** A message as the API tells it. */
export function viewOf({ position, payload, ...rest }: BusMessage): Record<string, unknown> {
  return { ...(position === undefined ? {} : { position }), ...rest, ...payloadOf(payload) };
}

/** JSON where it is JSON. */
function payloadOf(bytes: Uint8Array): { payload: unknown } | { payload_base64: string } {
  try {
    return { payload: JSON.parse(utf8.decode(bytes)) };
  } catch {
    return { payload_base64: Buffer.from(bytes).toString("base64") };
  }
}
