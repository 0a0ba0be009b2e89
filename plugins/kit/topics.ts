/**
 * Whether a message of this topic fits a filter: `+` stands for one level, a final `#` for all from there
 * on, none included.
 */
export function topicMatches(filter: string, topic: string): boolean {
  if (!filter.includes("+") && !filter.endsWith("#")) return filter === topic;
  const wanted = filter.split("/");
  const levels = topic.split("/");
  for (const [index, level] of wanted.entries()) {
    if (level === "#") return true;
    if (index >= levels.length || (level !== "+" && level !== levels[index])) return false;
  }
  return wanted.length === levels.length;
}

/** Where the daemon itself speaks. Nobody else publishes there. */
export const DAEMON_TOPICS = "openstarry";
/** Where one who asked waits for its answer: `_reply/ID`, an id that nobody can guess. */
export const REPLY_TOPICS = "_reply";

/** First levels, and the level that names an agent. */
const OWNED: readonly [string[], number][] = [
  [["agents"], 1],
  [[DAEMON_TOPICS, "events"], 3],
  [[DAEMON_TOPICS, "presence"], 2],
];

/** The only agent whose topics a filter takes: its own, or what the daemon tells of it. */
export function ownerOf(filter: string): string | undefined {
  const levels = filter.split("/");
  for (const [beginning, level] of OWNED) {
    if (!beginning.every((wanted, index) => wanted === levels[index])) continue;
    const owner = levels[level];
    return owner === "+" || owner === "#" ? undefined : owner;
  }
  return undefined;
}
