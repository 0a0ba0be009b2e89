import { fileURLToPath } from "node:url";
import { afterEach, expect, test } from "vitest";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { waitFor } from "../helpers/wait-for.js";

const pathTo = (file: string) => fileURLToPath(new URL(file, import.meta.url));
const Counter = {
  template_id: "Counter",
  command: "python3",
  args: [pathTo("../fixtures/agents/counts.py"), pathTo("../../examples/clients")],
  env: { PYTHONDONTWRITEBYTECODE: "1" },
  requires: ["state"],
  restart: { policy: "never" },
};

let daemon: TestDaemon | undefined;
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
});

test("agents in Python share a counter over the API and lose no step, and a restart keeps it", async ({
  skip,
}) => {
  const it = await startDaemon({ templates: [Counter] });
  daemon = it;
  const ids = ["one", "two", "three"];
  for (const agent_id of ids) {
    const made = await it.client.agents.create({ agent_id, template_id: "Counter" }).catch((error) => error);
    const required = process.env["CI_REQUIRE_SERVICES"] === "1";
    if (made.code === "command_not_found" && !required) skip("there is no python3 here");
  }
  for (const id of ids) {
    const { last_exit } = await it.client.agents.wait(id, { for: "ended", timeoutMs: 60_000 });
    const { stderr, stdout } = await it.cli(["logs", id]);
    expect(last_exit, stdout + stderr).toMatchObject({ code: 0 });
  }
  const keys: string[] = [];
  for await (const { key } of it.client.state.list("shared", { prefix: "counts/done/" })) keys.push(key);
  expect(keys).toEqual(["one", "three", "two"].map((id) => `counts/done/${id}`));

  expect((await it.cli(["restart"])).code).toBe(0);
  expect(await it.client.state.get("shared", "counts/all")).toMatchObject({ value: 75 });
  // What an agent kept for itself goes with it.
  expect(await it.client.state.get("agent:one", "é/119")).toMatchObject({ value: { index: 119 } });
  await it.client.agents.remove("one");
  const gone = async () => (await it.client.state.get("agent:one", "é/119")) === undefined;
  await waitFor(gone, { what: "the end of its namespace" });
}, 120_000);
