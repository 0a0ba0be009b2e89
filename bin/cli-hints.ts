/** The API's words for what the command line does by these; `$1` is the agent's id. */
const COMMANDS: readonly (readonly [RegExp, string])[] = [
  [/GET \/agents\/([^\s/?]+)\/(why|logs)\b/g, "openstarry-daemon $2 $1"],
  [/GET \/agents\/([^\s/?]+)\?wait_for=ended\b/g, "openstarry-daemon wait $1"],
  [/GET \/agents\/([^\s/?]+)\?wait_for=ready\b/g, "openstarry-daemon agent status $1 tells whether it is"],
  [/GET \/agents\/([^\s/?]+)\/result\b/g, "openstarry-daemon wait $1 --result"],
  [/DELETE \/agents\/([^\s/?]+)\?force=true/g, "openstarry-daemon agent rm $1 --force"],
  [/POST \/agents\/([^\s/?]+)\/(start|stop|restart)\b/g, "openstarry-daemon agent $2 $1"],
  [/POST \/agents\b(?![/?])/g, "openstarry-daemon run"],
  [/DELETE \/agents\/([^\s/?,;]+)/g, "openstarry-daemon agent rm $1"],
  [/GET \/agents\/([^\s/?,;]+)(?![\w/?])/g, "openstarry-daemon agent status $1"],
  [/GET \/(templates|plugins)\b(?![/?])/g, "openstarry-daemon $1"],
  [/GET \/agents\b(?![/?])/g, "openstarry-daemon list"],
];

/** A hint of the API, which speaks of requests, for somebody at a command line. */
export function hintForCommandLine(hint: string): string {
  return COMMANDS.reduce((text, [request, command]) => text.replace(request, command), hint);
}
