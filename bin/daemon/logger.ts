import { pino } from "pino";
import type { Logger } from "../../core/contracts/plugin.js";
import { wantsColour } from "../output.js";
import type { LogFile } from "./log-file.js";
import { formatRecord } from "./log-format.js";

export interface LogOptions {
  /** Receives one JSON record per line. */
  file: LogFile;
  /** Receives the same records as text for people. */
  console?: NodeJS.WriteStream;
  env: NodeJS.ProcessEnv;
}

/** Makes the daemon's log. */
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
