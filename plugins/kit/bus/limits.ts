import { z } from "zod";
import { size } from "../../../core/index.js";

/** What a bus keeps at most, as options of its plugin; `limitsOf` reads them. */
export function limitFields(defaults: { messages: number; mib: number; leastMib?: number }) {
  const { messages, mib, leastMib = 0 } = defaults;
  const expected = leastMib === 0 ? "more than nothing" : `at least ${leastMib}MiB`;
  return {
    max_messages: z.int().min(1).default(messages).meta({ description: "So many messages are kept." }),
    max_size: size()
      .refine((bytes) => bytes >= Math.max(1, leastMib * 2 ** 20), `expected ${expected}`)
      .default(mib * 2 ** 20)
      .meta({ description: "So much of topics and payloads is kept." }),
    max_groups: z.int().min(1).default(1_000).meta({ description: "So many groups are remembered." }),
  };
}

export function limitsOf(options: { max_messages: number; max_size: number; max_groups: number }) {
  const { max_messages, max_size, max_groups } = options;
  return { maxMessages: max_messages, maxBytes: max_size, maxGroups: max_groups };
}
