import { InvalidArgumentError } from "commander";
import { AGENT_STATES, type AgentState } from "../core/contracts/agent.js";
import { nearest } from "../core/lib/nearest.js";
import { parseDuration } from "../core/lib/units.js";

/** Parsers of option values. Commander turns what they throw into a usage error that names the option. */

export function port(text: string): number {
  const value = integer(text);
  if (value > 65_535) throw new InvalidArgumentError("expected a port number, 0 to 65535");
  return value;
}

export function integer(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("expected a whole number, 0 or more");
  return Number(text);
}

/** Checks a duration and returns the text unchanged: the API takes durations with their unit. */
export function durationText(text: string): string {
  if (parseDuration(text) === undefined) {
    throw new InvalidArgumentError('expected a duration with a unit, such as "30s" or "10m"');
  }
  return text;
}

/** Collects `NAME=VALUE` options; the value may contain "=". */
export function pair(text: string, earlier: Record<string, string> = {}): Record<string, string> {
  const cut = text.indexOf("=");
  if (cut < 1) throw new InvalidArgumentError(`expected NAME=VALUE, got "${text}"`);
  const name = text.slice(0, cut);
  if (Object.hasOwn(earlier, name)) throw new InvalidArgumentError(`${name} is given twice`);
  return { ...earlier, [name]: text.slice(cut + 1) };
}

/** Collects states, one or several with commas. */
export function states(text: string, earlier: AgentState[] = []): AgentState[] {
  const found = text.split(",").map((word) => {
    const state = AGENT_STATES.find((known) => known === word);
    if (state) return state;
    const guess = nearest(word, AGENT_STATES);
    const help = guess ? `did you mean "${guess}"?` : `expected one of ${AGENT_STATES.join(", ")}`;
    throw new InvalidArgumentError(`unknown state "${word}": ${help}`);
  });
  return [...earlier, ...found];
}

export function stream(text: string): "stdout" | "stderr" {
  if (text === "stdout" || text === "stderr") return text;
  throw new InvalidArgumentError('expected "stdout" or "stderr"');
}

/** Normalises a signal name: `hup` and `HUP` become `SIGHUP`. */
export function signalName(text: string): string {
  const upper = text.toUpperCase();
  if (!/^[A-Z][A-Z0-9]{1,10}$/.test(upper)) {
    throw new InvalidArgumentError("expected a signal name, such as SIGHUP");
  }
  return upper.startsWith("SIG") ? upper : `SIG${upper}`;
}
