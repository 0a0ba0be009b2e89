import { z } from "zod";
import { size } from "../../../core/index.js";

/** Returns the option fields of a bus plugin that limit what the bus keeps. `limitsOf` reads their values. */
export function limitFields(defaults: { messages: number; mib: number; leastMib?: number }) {
  const { messages, mib, leastMib = 0 } = defaults;
  const expected = leastMib === 0 ? "more than 0" : `at least ${leastMib}MiB`;
  return {
    max_messages: z.int().min(1).default(messages).meta({ description: "Maximum number of kept messages." }),
    max_size: size()
      .refine((bytes) => bytes >= Math.max(1, leastMib * 2 ** 20), `expected ${expected}`)
      .default(mib * 2 ** 20)
      .meta({ description: "Maximum total size of the topics and payloads of kept messages." }),
    max_groups: z.int().min(1).default(1_000).meta({ description: "Maximum number of consumer groups." }),
  };
}

export function limitsOf(options: { max_messages: number; max_size: number; max_groups: number }) {
  const { max_messages, max_size, max_groups } = options;
  return { maxMessages: max_messages, maxBytes: max_size, maxGroups: max_groups };
}
