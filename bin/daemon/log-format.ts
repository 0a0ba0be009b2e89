import { neutralise } from "../neutralise.js";
import { paint, type Style } from "../output.js";

const COLOURS: Readonly<Record<string, Style>> = { debug: "dim", warn: "yellow", error: "red" };
const OWN_FIELDS = new Set(["level", "time", "msg"]);

/**
 * Formats a JSON record of the log as one line for people: time, level, message, fields. Control characters and line
 * ends are made visible, so that a logged text cannot forge a second line.
 */
export function formatRecord(line: string, colours: boolean): string {
  const record = JSON.parse(line) as Record<string, unknown>;
  const level = String(record.level ?? "info");
  const fields = Object.entries(record)
    .filter(([name]) => !OWN_FIELDS.has(name))
    .map(([name, value]) => `${name}=${show(value)}`);
  const time = String(record.time ?? "").slice(11, 23);
  const words = [String(record.msg ?? ""), ...fields].map(neutralise).join("  ");
  const colour = colours ? COLOURS[level] : undefined;
  const shown = neutralise(level).padEnd(5);
  return `${time} ${colour ? paint(shown, colour) : shown} ${words}\n`;
}

function show(value: unknown): string {
  if (typeof value === "string") return /^[^\s"=]+$/.test(value) ? value : JSON.stringify(value);
  // An error's stack is in the file.
  if (typeof value === "object" && value !== null && "stack" in value && "message" in value) {
    return JSON.stringify(value.message);
  }
  return JSON.stringify(value);
}
