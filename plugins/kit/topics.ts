/** Tests whether a topic matches a filter: `+` is any one level, a final `#` any number of further levels. */
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

/** The first level of topics that only the daemon publishes to. */
export const DAEMON_TOPICS = "openstarry";
/** The first level of reply topics, `_reply/ID`. The id cannot be guessed. */
export const REPLY_TOPICS = "_reply";

/** Topic prefixes, and the level that names the agent that owns the topic. */
const OWNED: readonly [string[], number][] = [
  [["agents"], 1],
  [[DAEMON_TOPICS, "events"], 3],
  [[DAEMON_TOPICS, "presence"], 2],
];

/** Returns the agent that owns all topics of a filter; `undefined` when there is no single one. */
export function ownerOf(filter: string): string | undefined {
  const levels = filter.split("/");
  for (const [beginning, level] of OWNED) {
    if (!beginning.every((wanted, index) => wanted === levels[index])) continue;
    const owner = levels[level];
    return owner === "+" || owner === "#" ? undefined : owner;
  }
  return undefined;
}
