/** What the daemon's texts call by route, and the tool that does it. Longer routes come first. */
const WORDS: readonly [route: RegExp, tool: string][] = [
  [/GET \/agents\/[\w.-]+\?wait_for=\w+/g, "agent_wait"],
  [/GET \/agents\/[\w.-]+\/logs/g, "agent_logs"],
  [/GET \/agents\/[\w.-]+\/why/g, "agent_why"],
  [/GET \/agents\/[\w.-]+\/result/g, "agent_result"],
  [/GET \/agents\/[\w.-]+/g, "agent_status"],
  [/GET \/agents\b/g, "agent_list"],
  [/GET \/templates\b(\/[\w.-]+)?/g, "agent_templates"],
  [/POST \/agents\/[\w.-]+\/(re)?start/g, "agent_restart"],
  [/POST \/agents\/[\w.-]+\/stop/g, "agent_stop"],
  [/POST \/agents\b/g, "agent_start"],
  [/DELETE \/agents\/[\w.-]+\?force=true/g, 'agent_stop with remove: true and grace: "0s"'],
  [/DELETE \/agents\/[\w.-]+|DELETE it\b/g, "agent_stop with remove: true"],
];

/** A text of the daemon in the words of somebody who has tools, and no HTTP. */
export function inToolWords(text: string): string {
  return WORDS.reduce((words, [route, tool]) => words.replace(route, tool), text);
}
