/** Whether a topic fits a filter: `+` is any one level, a final `#` all from there on, none included. */
export function topicMatches(filter: string, topic: string): boolean {
  const wanted = filter.split("/");
  const levels = topic.split("/");
  for (const [index, level] of wanted.entries()) {
    if (level === "#") return true;
    if (index >= levels.length || (level !== "+" && level !== levels[index])) return false;
  }
  return wanted.length === levels.length;
}

/** 1 to 256 bytes in at most 16 levels, none of them empty; a level that is a wildcard in filters only. */
export function isTopic(text: unknown, wildcards: boolean): text is string {
  if (typeof text !== "string" || Buffer.byteLength(text) > 256) return false;
  const levels = text.split("/");
  const isPlain = (level: string) => !["", "+", "#"].includes(level) && !level.includes("\0");
  const isLevel = (level: string, index: number) =>
    isPlain(level) || (wildcards && (level === "+" || (level === "#" && index === levels.length - 1)));
  return levels.length <= 16 && levels.every(isLevel);
}

/** An agent reads what is shared and what is its own. Others' inboxes it reaches by the daemon's API. */
export function mayRead(agent: string, filter: string): boolean {
  const [first, owner] = filter.split("/");
  return first === "shared" || (first === "agents" && owner === agent);
}

/** And writes there, and where somebody waits for its answer. */
export function mayWrite(agent: string, topic: string): boolean {
  return mayRead(agent, topic) || topic.startsWith("_reply/");
}
