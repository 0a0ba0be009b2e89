import { z } from "zod";
import { duration, ID_PATTERN } from "../../core/index.js";
import { filter, MAX_PAYLOAD_BYTES, topic } from "../kit/topic-schemas.js";

export { filter, topic };

export const group = z
  .string()
  .regex(ID_PATTERN, "expected 1 to 63 letters, digits, '.', '_' or '-'")
  .meta({ description: "Members of a group share its messages. Of another filter it is another group." });

export const after = z.string().min(1).max(64).optional().meta({
  description: 'Kept messages after this position first; "0": all of them. Absent: what comes.',
});

export const payload = z
  .unknown()
  .refine((it) => it !== undefined, 'it is missing; give "payload", which may be null')
  .refine(
    (it) => Buffer.byteLength(JSON.stringify(it) ?? "") <= MAX_PAYLOAD_BYTES,
    "expected at most 1 MiB of JSON",
  )
  .meta({ description: "JSON, at most 1 MiB." });

export const replyTimeout = duration()
  .refine((ms) => ms <= 600_000, "expected at most 10m")
  .default(30_000)
  .meta({ description: 'How long to wait for the reply, as in "30s". Default 30s, at most 10m.' });

export const ackWait = duration({ min: "1s" })
  .refine((ms) => ms <= 86_400_000, "expected at most 1d")
  .default(30_000)
  .meta({ description: "What is not settled for so long is delivered again. Default 30s." });

export const nackDelay = duration()
  .refine((ms) => ms <= 86_400_000, "expected at most 1d")
  .default(0)
  .meta({ description: "Not before so long. Default: at once." });

export const messageSchema = z
  .object({
    position: z.string().optional().meta({ description: "Good for `after`. Absent: it was not kept." }),
    topic: z.string(),
    payload: z.unknown().optional(),
    payload_base64: z.string().optional().meta({ description: "Instead of a payload that is not JSON." }),
    at: z.string().meta({ description: "RFC 3339, UTC." }),
    from: z.string().optional().meta({ description: "agent:ID, operator, or a part of the daemon." }),
    reply_to: z.string().optional().meta({ description: "Where an answer is waited for." }),
    ack: z.string().optional().meta({ description: "In a group: what to settle it by." }),
    attempt: z.int().optional().meta({ description: "In a group: 1 for the first time." }),
  })
  .meta({ id: "BusMessage" });
