/** What an agent is told about itself. */
const OF_AN_AGENT =
  /^OPENSTARRY_((RUN|AGENT|PARENT|TEMPLATE)_ID|(TOKEN|PARAMS|RESULT)_FILE|API_SOCKET|.+_URL)$/;

/**
 * Takes out of the environment what it says about the agent that it was made for: a daemon that is
 * started from inside an agent is no part of that agent's run, and does not act with its token.
 */
export function dropAgentVariables(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  for (const name of Object.keys(env)) {
    if (OF_AN_AGENT.test(name)) delete env[name];
  }
  return env;
}
