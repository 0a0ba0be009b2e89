import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { fixtureAgent } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { processesOf } from "../helpers/processes.js";
import { startTemplateService, type TemplateService } from "../helpers/template-service.js";
import { waitFor } from "../helpers/wait-for.js";

const TOKEN = "a-token-of-the-template-service";
const Sleeper = { template_id: "Sleeper", command: "/bin/sh", args: fixtureAgent("sleeper.sh").args };

let daemon: TestDaemon | undefined;
let service: TemplateService | undefined;
afterEach(async () => {
  await daemon?.stop();
  await service?.stop();
  [daemon, service] = [undefined, undefined];
});

test("agents start from a service, and from its cache while it is away", { timeout: 120_000 }, async () => {
  const remote = await startTemplateService({ Sleeper });
  service = remote;
  const it = await startDaemon({ templates: [{ template_id: "Local", command: "/bin/true" }] });
  daemon = it;
  await it.client.daemon.stop();
  await waitFor(() => it.pid() === undefined, { what: "the daemon's end" });
  const token_file = join(it.project, "token");
  writeFileSync(token_file, TOKEN, { mode: 0o600 });
  const options = { url: remote.url, token_file, refresh: "1s", max_age: "0s" };
  writeFileSync(
    it.config,
    JSON.stringify({ templates: ["./templates"], plugins: [["template-source-http", options]] }),
  );
  await it.start();
  const ready = (id: string) => it.client.agents.wait(id, { for: "ready", timeoutMs: 10_000 });

  await it.client.agents.create({ agent_id: "one", template_id: "Sleeper" });
  expect((await ready("one")).state).toBe("running");
  const { items } = await it.client.templates.list();
  expect(items.map(({ template_id }) => template_id).sort()).toEqual(["Local", "Sleeper"]);
  await expect(it.client.templates.put("Sleeper", Sleeper)).rejects.toMatchObject({
    code: "template_read_only",
    message: expect.stringContaining("the source http"),
  });
  await expect(it.client.templates.delete("Sleeper")).rejects.toMatchObject({ code: "template_read_only" });
  expect(remote.asked.at(-1)?.headers.authorization).toBe(`Bearer ${TOKEN}`);

  await remote.stop();
  process.kill(it.pid() as number, "SIGKILL");
  await waitFor(() => it.pid() === undefined, { what: "the lock to be free" });
  await it.start();
  await it.client.agents.create({ agent_id: "two", template_id: "Sleeper" });
  expect((await ready("two")).template_revision).toBe((await ready("one")).template_revision);
  expect((await it.client.templates.get("Sleeper")).origin).toContain(
    `${remote.url}/templates/Sleeper (from the cache`,
  );
  const problem =
    /template service http:\S+ did not answer \(ECONNREFUSED\) \(since .*Z\); from the cache: Sleeper/;
  expect((await it.cli(["plugins"])).stdout).toMatch(/template-source-http\s.*degraded/);
  expect((await it.cli(["status"])).stdout.replaceAll(/\s+/g, " ")).toMatch(problem);
  await expect(it.client.agents.create({ template_id: "Unknown" })).rejects.toMatchObject({
    code: "template_not_found",
    message: expect.stringContaining(
      `could not be asked: http (template service ${remote.url} did not answer`,
    ),
  });

  await remote.start();
  await waitFor(async () => !(await it.cli(["plugins"])).stdout.includes("degraded"), {
    what: "it to recover",
  });
  expect((await it.client.templates.get("Sleeper")).origin).toBe(`${remote.url}/templates/Sleeper`);
  const files = ["daemon.log", "journal.db", "templates-http/Sleeper.json"].map((name) =>
    join(it.home, name),
  );
  expect(files.every((file) => existsSync(file))).toBe(true);
  expect(files.filter((file) => readFileSync(file, "latin1").includes(TOKEN))).toEqual([]);
  expect(processesOf(it.home).length).toBeGreaterThan(1);
});
