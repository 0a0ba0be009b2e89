import type { Command } from "commander";

/** Commands that end what runs: a reader who does what a hint says must not be led there by a slip. */
const NEVER_SUGGESTED: ReadonlySet<string> = new Set(["stop", "restart", "rm"]);

/**
 * Commander's complaint as this command words it: `error: …` and a `hint: …` that holds the suggestion,
 * or where the command is explained.
 */
export function adaptUsageError(message: string, command: string): { detail: string; hint: string } {
  const text = message.trim().replace(/^error: /, "");
  const candidates = /\n\(Did you mean (?:one of )?([^)]+)\?\)/.exec(text)?.[1]?.split(", ") ?? [];
  const suggestion = candidates.filter((name) => !NEVER_SUGGESTED.has(name)).join(", ");
  const detail = text.replace(/\n\(Did you mean [^)]+\?\)/, "").trim();
  const hint = suggestion ? `did you mean ${suggestion}?` : `${command} --help explains it`;
  return { detail: detail.replaceAll("\n", " "), hint };
}

/** `openstarry-daemon agent stop` */
export function commandPath(command: Command): string {
  const names: string[] = [];
  for (let at: Command | null = command; at; at = at.parent) names.unshift(at.name());
  return names.join(" ");
}
