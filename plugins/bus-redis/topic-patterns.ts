import { topicMatches } from "../kit/topics.js";

/** Returns the function that tells whether a topic matches a filter. Fast for a filter without wildcards. */
export function createTopicMatcher(filter: string): (topic: string) => boolean {
  if (filter.split("/").some(isWildcard)) return (topic) => topicMatches(filter, topic);
  return (topic) => topic === filter;
}

/**
 * Returns a filter in the form that the scripts take: `=` and the topic, or for one with wildcards a Lua pattern
 * (lua.org/manual/5.1/manual.html#5.4.1). It matches what `topicMatches` matches.
 */
export function luaPatternOf(filter: string): string {
  const levels = filter.split("/");
  if (!levels.some(isWildcard)) return `=${filter}`;
  const parts = levels
    .filter((level) => level !== "#")
    .map((level) => (level === "+" ? "[^/]+/" : `${escapeForLua(level)}/`));
  return `^${parts.join("")}${levels.at(-1) === "#" ? "" : "$"}`;
}

/** Returns the levels without wildcards in the form of the server's index: `2:LEVEL` for the second. */
export function literalLevelsOf(filter: string): string[] {
  return filter.split("/").flatMap((level, index) => (isWildcard(level) ? [] : [`${index + 1}:${level}`]));
}

function isWildcard(level: string): boolean {
  return level === "+" || level === "#";
}

/** Escapes punctuation by `%`, and a NUL by its name. Letters and bytes of UTF-8 need no escape. */
function escapeForLua(level: string): string {
  return level.replaceAll("\0", "%z").replace(/[!-/:-@[-`{-~]/g, (sign) => `%${sign}`);
}
