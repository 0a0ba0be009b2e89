import { z } from "zod";

const MAX_TOPIC_BYTES = 256;
const MAX_LEVELS = 16;
/** The largest payload of a message, in bytes. */
export const MAX_PAYLOAD_BYTES = 2 ** 20;

const levels = z
  .string()
  .refine(
    (text) => text !== "" && Buffer.byteLength(text) <= MAX_TOPIC_BYTES,
    `expected 1 to ${MAX_TOPIC_BYTES} bytes`,
  )
  .refine(
    (text) => text.split("/").length <= MAX_LEVELS && text.split("/").every((level) => level !== ""),
    `expected 1 to ${MAX_LEVELS} levels between slashes, none of them empty`,
  )
  // Control characters, and halves of characters, are not kept alike by all buses.
  .refine((text) => !/[\p{Cc}\p{Cs}]/u.test(text), "expected text without control characters");

export const topic = levels
  .refine((text) => !/[+#]/.test(text), 'expected a topic without "+" and "#": those are for reading')
  .meta({ description: "Levels between slashes, as in shared/reports/daily; at most 256 bytes." });

export const filter = levels
  .refine(
    (text) => text.split("/").every((level) => level === "+" || level === "#" || !/[+#]/.test(level)),
    'expected "+" and "#" as whole levels only',
  )
  .refine((text) => !text.split("/").slice(0, -1).includes("#"), 'expected "#" as the last level only')
  .meta({ description: 'A topic; "+" stands for any one level, a final "#" for all from there on.' });
