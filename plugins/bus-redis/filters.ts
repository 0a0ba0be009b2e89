import { topicMatches } from "../kit/topics.js";

/** Whether a topic fits a filter. Most name one topic, and that is quick to tell: all are asked about every message. */
export function fitting(filter: string): (topic: string) => boolean {
  if (filter.split("/").some(isWildcard)) return (topic) => topicMatches(filter, topic);
  return (topic) => topic === filter;
}

/**
 * A filter as the scripts take it. One with wildcards becomes a Lua pattern (lua.org/manual/5.1/manual.html#5.4.1).
 * Says what `topicMatches` says.
 */
export function patternOf(filter: string): string {
  const levels = filter.split("/");
  if (!levels.some(isWildcard)) return `=${filter}`;
  const parts = levels
    .filter((level) => level !== "#")
    .map((level) => (level === "+" ? "[^/]+/" : `${escaped(level)}/`));
  return `^${parts.join("")}${levels.at(-1) === "#" ? "" : "$"}`;
}

/** The levels that a filter names, as the server knows them: `2:LEVEL` for the second. */
export function levelsOf(filter: string): string[] {
  return filter.split("/").flatMap((level, index) => (isWildcard(level) ? [] : [`${index + 1}:${level}`]));
}

function isWildcard(level: string): boolean {
  return level === "+" || level === "#";
}

/** A sign before `%` stands for itself; a NUL has a name. Letters and bytes of UTF-8 need nothing. */
function escaped(level: string): string {
  return level.replaceAll("\0", "%z").replace(/[!-/:-@[-`{-~]/g, (sign) => `%${sign}`);
}
