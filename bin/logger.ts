import { pino } from "pino";
import type { Logger } from "../core/plugin.js";
import { formatRecord } from "./log-format.js";
import { wantsColour } from "./output.js";

export interface LogOptions {
  /** `daemon.log`, open for appending. Gets one JSON record a line. */
  fd: number;
  /** Where people read along: gets the same records as text. */
  console?: NodeJS.WriteStream;
  env: NodeJS.ProcessEnv;
}

/** The daemon's log. Writing is synchronous: the last words before an end are there. */
export function createLogger({ fd, console, env }: LogOptions): Logger {
  const file = pino.destination({ dest: fd, sync: true });
  // A full disk must not end the daemon; what could not be written is lost.
  file.on("error", () => {});
  const colours = wantsColour(Boolean(console?.isTTY), env);
  const write = (line: string) => {
    file.write(line);
    console?.write(formatRecord(line, colours));
  };
  return pino(
    {
      base: undefined,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: pino.stdSerializers.err, error: errorText },
    },
    { write },
  );
}

function errorText(error: unknown): unknown {
  return error instanceof Error ? pino.stdSerializers.err(error) : error;
}
