import { pino } from "pino";
import type { Logger } from "../../core/contracts/plugin.js";
import { wantsColour } from "../output.js";
import type { LogFile } from "./log-file.js";
import { formatRecord } from "./log-format.js";

export interface LogOptions {
  /** Gets one JSON record a line. */
  file: LogFile;
  /** Where people read along: gets the same records as text. */
  console?: NodeJS.WriteStream;
  env: NodeJS.ProcessEnv;
}

/** The daemon's log. */
export function createLogger({ file, console, env }: LogOptions): Logger {
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
      serializers: { err: pino.stdSerializers.err, error: serializeError },
    },
    { write },
  );
}

function serializeError(error: unknown): unknown {
  return error instanceof Error ? pino.stdSerializers.err(error) : error;
}
