import type { Logger } from "../../core/index.js";

export interface LoggedLine {
  level: string;
  fields: object;
  message: string;
}

/** A log that keeps what is said. */
export function createRecorder(): { log: Logger; logged: LoggedLine[] } {
  const logged: LoggedLine[] = [];
  const at = (level: string) => (fields: object, message: string) =>
    void logged.push({ level, fields, message });
  return { log: { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") }, logged };
}
