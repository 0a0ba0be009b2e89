import { isOpenStarryError, type Logger, systemClock, validateSync } from "../../../core/index.js";
import { settingsSchema } from "../ipc/broker-settings.js";
import { runBroker } from "./run-broker.js";

// The program of the service svc:bus. Its output is the service's log.

const log: Logger = {
  debug() {},
  info: (fields, message) => console.log(line(message, fields)),
  warn: (fields, message) => console.error(line(message, fields)),
  error: (fields, message) => console.error(line(message, fields)),
};

// All files and sockets are for this user only.
process.umask(0o077);
try {
  const given: unknown = JSON.parse(process.argv[2] ?? "{}");
  const settings = validateSync(settingsSchema, given, { code: "config_invalid", what: "the settings" });
  const broker = await runBroker(settings, systemClock, log);
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.once(signal, () => {
      broker.close().then(
        () => process.exit(0),
        (error: unknown) => {
          log.error({ err: error }, "cannot close the message broker cleanly");
          process.exit(1);
        },
      );
    });
  }
  log.info({ pid: process.pid }, "the message broker is ready");
} catch (error) {
  log.error({ err: error }, "cannot start the message broker");
  process.exit(1);
}

function line(message: string, { err, ...fields }: { err?: unknown }): string {
  const more = Object.keys(fields).length > 0 ? ` ${JSON.stringify(fields)}` : "";
  if (err === undefined) return message + more;
  const hint = isOpenStarryError(err) && err.hint !== undefined ? ` (${err.hint})` : "";
  return `${message}: ${err instanceof Error ? err.message : String(err)}${hint}${more}`;
}
