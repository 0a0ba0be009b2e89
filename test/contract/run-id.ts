import { uuidv7 } from "../../core/lib/ids.js";

/** A run id as the kernel makes them. */
export const newRunId = (): string => uuidv7(Date.now());
