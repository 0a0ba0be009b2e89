import type { Command } from "commander";

/** Destructive commands: a typo must not lead a reader who follows the hint to one of them. */
const NEVER_SUGGESTED: ReadonlySet<string> = new Set(["stop", "restart", "rm"]);

/** Turns commander's message into a detail and a hint: its suggestion, or the command's help. */
export function adaptUsageError(message: string, command: string): { detail: string; hint: string } {
  const text = message.trim().replace(/^error: /, "");
  const candidates = /\n\(Did you mean (?:one of )?([^)]+)\?\)/.exec(text)?.[1]?.split(", ") ?? [];
  const suggestion = candidates.filter((name) => !NEVER_SUGGESTED.has(name)).join(", ");
  const detail = text.replace(/\n\(Did you mean [^)]+\?\)/, "").trim();
  const hint = suggestion ? `did you mean ${suggestion}?` : `see ${command} --help`;
  return { detail: detail.replaceAll("\n", " "), hint };
}

/** Answers the full name of a command: `openstarry-daemon agent stop`. */
export function commandPath(command: Command): string {
  const names: string[] = [];
  for (let at: Command | null = command; at; at = at.parent) names.unshift(at.name());
  return names.join(" ");
}
