/** The variables that tell an agent about itself. */
const OF_AN_AGENT =
  /^OPENSTARRY_((RUN|AGENT|PARENT|TEMPLATE)_ID|(TOKEN|PARAMS|RESULT)_FILE|API_SOCKET|.+_URL)$/;

/**
 * Removes an agent's own variables from the environment: a daemon that is started inside an agent is not part of that
 * agent's run and must not act with its token.
 */
export function dropAgentVariables(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  for (const name of Object.keys(env)) {
    if (OF_AN_AGENT.test(name)) delete env[name];
  }
  return env;
}
