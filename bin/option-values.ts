import { InvalidArgumentError } from "commander";
import { AGENT_STATES, type AgentState } from "../core/contracts/agent.js";
import { nearest } from "../core/lib/nearest.js";
import { parseDuration } from "../core/lib/units.js";

/** Parsers of option values. What they throw becomes a usage error that names the option. */

export function port(text: string): number {
  const value = integer(text);
  if (value > 65_535) throw new InvalidArgumentError("expected a port number, 0 to 65535");
  return value;
}

export function integer(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("expected a whole number, 0 or more");
  return Number(text);
}

/** Checked here, handed on as it was written: the API takes durations with their unit. */
export function durationText(text: string): string {
  if (parseDuration(text) === undefined) {
    throw new InvalidArgumentError('expected a duration with its unit, such as "30s" or "10m"');
  }
  return text;
}

/** `NAME=VALUE`, as often as wanted; the value may hold further "=". */
export function pair(text: string, earlier: Record<string, string> = {}): Record<string, string> {
  const cut = text.indexOf("=");
  if (cut < 1) throw new InvalidArgumentError(`expected NAME=VALUE, got "${text}"`);
  const name = text.slice(0, cut);
  if (Object.hasOwn(earlier, name)) throw new InvalidArgumentError(`${name} is given twice`);
  return { ...earlier, [name]: text.slice(cut + 1) };
}

/** One state or several with commas, as often as wanted. */
export function states(text: string, earlier: AgentState[] = []): AgentState[] {
  const found = text.split(",").map((word) => {
    const state = AGENT_STATES.find((known) => known === word);
    if (state) return state;
    const guess = nearest(word, AGENT_STATES);
    const help = guess ? `did you mean "${guess}"?` : `it is one of ${AGENT_STATES.join(", ")}`;
    throw new InvalidArgumentError(`there is no state "${word}": ${help}`);
  });
  return [...earlier, ...found];
}

export function stream(text: string): "stdout" | "stderr" {
  if (text === "stdout" || text === "stderr") return text;
  throw new InvalidArgumentError('expected "stdout" or "stderr"');
}

/** `SIGHUP`, `hup` and `HUP` are the same. */
export function signalName(text: string): string {
  const upper = text.toUpperCase();
  if (!/^[A-Z][A-Z0-9]{1,10}$/.test(upper)) {
    throw new InvalidArgumentError("expected the name of a signal, such as SIGHUP");
  }
  return upper.startsWith("SIG") ? upper : `SIG${upper}`;
}
