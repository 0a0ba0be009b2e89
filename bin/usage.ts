import type { Command } from "commander";

/**
 * Commander's complaint as this command words it: `error: …` and a `hint: …` that holds the suggestion,
 * or where the command is explained.
 */
export function adaptUsageError(message: string, command: string): { detail: string; hint: string } {
  const text = message.trim().replace(/^error: /, "");
  const suggestion = /\n\(Did you mean (?:one of )?([^)]+)\?\)/.exec(text)?.[1];
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
