import { expect, test } from "vitest";
import { dropAgentVariables } from "../../../bin/agent-environment.js";

test("a daemon that is started inside an agent does not keep that agent's identity", () => {
  const own = { PATH: "/bin", OPENSTARRY_HOME: "/home/x", OPENSTARRY_HANDED_OVER: "{}" };
  const told = ["RUN_ID", "AGENT_ID", "PARENT_ID", "TEMPLATE_ID", "TOKEN_FILE", "API_SOCKET", "API_URL"];
  const env = { ...own, ...Object.fromEntries(told.map((name) => [`OPENSTARRY_${name}`, "x"])) };
  expect(dropAgentVariables(env)).toEqual(own);
});
