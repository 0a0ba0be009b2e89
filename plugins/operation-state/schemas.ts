import { z } from "zod";
import { duration } from "../../core/index.js";

const MAX_KEY_BYTES = 512;
const MAX_VALUE_BYTES = 2 ** 20;
const MAX_BATCH_BYTES = 4 * 2 ** 20;

const NAMESPACE = /^(agent:[A-Za-z0-9_][A-Za-z0-9._-]{0,62}|[a-z][a-z0-9_-]{0,62})$/;

export const namespace = z
  .string()
  .regex(NAMESPACE, 'expected "shared", "agent:ID", or a name of a-z 0-9 _ - that begins with a letter')
  .meta({ description: '"shared", "agent:ID", or a name of the operator\'s own.' });

const keyText = z
  .string()
  // Control characters, and halves of characters, are not kept alike by all stores.
  .refine((key) => !/[\p{Cc}\p{Cs}]/u.test(key), "expected text without control characters");

export const key = keyText
  .refine(
    (text) => text !== "" && Buffer.byteLength(text) <= MAX_KEY_BYTES,
    `expected 1 to ${MAX_KEY_BYTES} bytes`,
  )
  .meta({ description: `1 to ${MAX_KEY_BYTES} bytes of UTF-8; slashes are allowed.` });

export const prefix = keyText.max(MAX_KEY_BYTES);

const value = z
  .unknown()
  .refine((it) => it !== undefined, 'it is missing; give "value", which may be null')
  .refine((it) => bytesOf(it) <= MAX_VALUE_BYTES, "expected at most 1 MiB of JSON")
  .meta({ description: "JSON, at most 1 MiB." });

const ttl = duration()
  .refine((ms) => ms > 0, "expected more than nothing")
  .optional()
  .meta({ description: 'It is gone so long after it was put, as in "10m". Absent: it stays.' });

export const ifVersion = z
  .union([z.int().min(1), z.literal("absent")])
  .optional()
  .meta({ description: 'Only when the value has this version, or is "absent".' });

export const putFields = { value, ttl, if_version: ifVersion };

export const writesSchema = z
  .array(
    z.discriminatedUnion("op", [
      z.strictObject({ op: z.literal("put"), key, ...putFields }),
      z.strictObject({ op: z.literal("delete"), key, if_version: ifVersion }),
    ]),
  )
  .min(1)
  .max(100)
  .refine((writes) => bytesOf(writes) <= MAX_BATCH_BYTES, "expected at most 4 MiB altogether");

export const entrySchema = z
  .object({
    key: z.string(),
    value: z.unknown().optional(),
    version: z.int().meta({ description: "Rises with every change in the namespace." }),
    updated_at: z.string().meta({ description: "RFC 3339, UTC." }),
    expires_at: z.string().optional(),
  })
  .meta({ id: "StateEntry" });

function bytesOf(json: unknown): number {
  return Buffer.byteLength(JSON.stringify(json) ?? "");
}
