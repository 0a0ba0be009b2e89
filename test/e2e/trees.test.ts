import { readFileSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fixtureAgent, printedPid } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { environOf, openFilesOf, processesOfAgent, seeProcess, uidOf } from "../helpers/processes.js";
import { waitFor } from "../helpers/wait-for.js";

const GRACE_MS = 400;
/** On a machine that has other work to do. The promise is a second. */
const PATIENCE_MS = 10_000;

/** What an agent of another user says of itself. */
const STRANGER = `echo "uid $(id -u)"
echo "groups $(id -G)"
cat "$OPENSTARRY_PARAMS_FILE" >/dev/null && [ -s "$OPENSTARRY_TOKEN_FILE" ] && echo "reads its files"
ls "$OPENSTARRY_HOME" >/dev/null 2>&1 || echo "kept out of the home"
ls "$(dirname "$(dirname "$OPENSTARRY_TOKEN_FILE")")" >/dev/null 2>&1 || echo "sees no other runs"
echo "HOME $HOME, USER $USER"
echo left >"$OPENSTARRY_RESULT_FILE"
echo "agent $$"
sleep 100000`;

const never = { policy: "never" };
const stop = { grace: `${GRACE_MS}ms` };
const templates = [
  { template_id: "Stubborn", ...fixtureAgent("stubborn.sh"), stop, restart: never },
  { template_id: "Family", ...fixtureAgent("family.sh"), stop: { grace: "60s" }, restart: never },
  { template_id: "LeavesChild", ...fixtureAgent("leaves-child.sh"), stop, restart: never },
  { template_id: "Stranger", command: "sh", args: ["-c", STRANGER], user: "nobody", restart: never },
];

/** The agent, its child and its grandchild, all alive. */
async function family(daemon: TestDaemon, agentId: string): Promise<number[]> {
  const pids = await Promise.all(
    ["agent", "child", "grandchild"].map((word) => printedPid(daemon, agentId, word)),
  );
  expect(pids.map((pid) => seeProcess(pid)?.pid)).toEqual(pids);
  return pids;
}

const alive = (pids: readonly number[]) => pids.filter((pid) => seeProcess(pid) !== undefined);

describe.each([
  ["with a cgroup for each run, where the system has them", true],
  ["without cgroups", false],
])("%s", (_, cgroups) => {
  let daemon: TestDaemon;
  beforeAll(async () => {
    const plugins = cgroups ? [] : [["spawner-process", { cgroups: false }]];
    daemon = await startDaemon({ config: { plugins }, templates });
  });
  afterAll(() => daemon?.stop());

  test("whoever ignores SIGTERM is gone after its grace, a grandchild in its own session too", async () => {
    const { containment } = await daemon.client.agents.create({
      agent_id: "stubborn",
      template_id: "Stubborn",
    });
    if (!cgroups) expect(containment).toBe("best_effort");
    const pids = await family(daemon, "stubborn");
    const sessions = pids.map((pid) => seeProcess(pid)?.session);
    expect(sessions).toEqual([pids[0], pids[0], pids[2]]);
    const startedAt = performance.now();
    const final = await daemon.client.agents.remove("stubborn");
    const tookMs = performance.now() - startedAt;
    expect(alive(pids)).toEqual([]);
    expect(tookMs).toBeGreaterThanOrEqual(GRACE_MS - 5);
    expect(tookMs).toBeLessThan(GRACE_MS + PATIENCE_MS);
    expect(final.last_exit).toMatchObject({ kind: "signaled", signal: "SIGKILL", cause: "stop_request" });
  });

  test("a family that heeds SIGTERM does not use up its grace", async () => {
    await daemon.client.agents.create({ agent_id: "polite", template_id: "Family" });
    const pids = await family(daemon, "polite");
    const startedAt = performance.now();
    await daemon.client.agents.remove("polite");
    expect(performance.now() - startedAt).toBeLessThan(PATIENCE_MS);
    expect(alive(pids)).toEqual([]);
  });

  test("--force leaves no grace at all", async () => {
    await daemon.client.agents.create({ agent_id: "forced", template_id: "Family" });
    const pids = await family(daemon, "forced");
    const final = await daemon.client.agents.remove("forced", { force: true });
    expect(alive(pids)).toEqual([]);
    expect(final.last_exit).toMatchObject({ kind: "signaled", signal: "SIGKILL" });
  });

  test("stopped by SIGSTOP, it is ended all the same, and politely", async () => {
    await daemon.client.agents.create({ agent_id: "frozen", template_id: "Family" });
    const pids = await family(daemon, "frozen");
    await daemon.client.agents.signal("frozen", "SIGSTOP");
    await waitFor(() => seeProcess(pids[0] ?? 0)?.state === "T", { what: "the agent to be stopped" });
    const startedAt = performance.now();
    const final = await daemon.client.agents.remove("frozen");
    expect(performance.now() - startedAt).toBeLessThan(PATIENCE_MS);
    expect(alive(pids)).toEqual([]);
    expect(final.last_exit).toMatchObject({ kind: "signaled", signal: "SIGTERM" });
  });

  test("an agent that ends by itself leaves no child behind, whatever that ignores", async () => {
    await daemon.client.agents.create({ agent_id: "parent", template_id: "LeavesChild" });
    const ended = await daemon.client.agents.wait("parent", { for: "ended", timeoutMs: 15_000 });
    const child = await printedPid(daemon, "parent", "child");
    expect(ended.last_exit).toMatchObject({ kind: "exited", code: 0, cause: "self", success: true });
    expect(alive([child])).toEqual([]);
    expect(processesOfAgent(daemon.home, "parent")).toEqual([]);
  });

  test("a crash of the agent takes its tree along before the next run begins", async () => {
    await daemon.client.agents.create({ agent_id: "crashing", template_id: "Stubborn" });
    const pids = await family(daemon, "crashing");
    process.kill(pids[0] ?? 0, "SIGKILL");
    const ended = await daemon.client.agents.wait("crashing", { for: "ended", timeoutMs: 15_000 });
    expect(ended.last_exit).toMatchObject({ kind: "signaled", signal: "SIGKILL", cause: "self" });
    expect(alive(pids)).toEqual([]);
  });

  test("the shim's end is not the agent's", async () => {
    const { pid = 0, run_id } = await daemon.client.agents.create({
      agent_id: "orphan",
      template_id: "Family",
    });
    const pids = await family(daemon, "orphan");
    const shim = seeProcess(pid)?.ppid ?? 0;
    process.kill(shim, "SIGKILL");
    await waitFor(() => seeProcess(shim) === undefined, { what: "the shim's end" });
    expect(await daemon.client.agents.get("orphan")).toMatchObject({ state: "running", pid, run_id });
    const final = await daemon.client.agents.remove("orphan");
    expect(alive(pids)).toEqual([]);
    expect(final.last_exit).toMatchObject({ cause: "stop_request", success: true });
  });

  test("an agent holds nothing of the daemon's open", async () => {
    const { pid = 0 } = await daemon.client.agents.create({ agent_id: "holder", template_id: "Family" });
    await family(daemon, "holder");
    const script = fixtureAgent("family.sh").args[0];
    const open = openFilesOf(pid).filter((path) => path !== script);
    expect(open).toEqual([
      "/dev/null",
      ...["stdout", "stderr"].map((it) => expect.stringContaining(`.${it}.log`)),
    ]);
    await daemon.client.agents.remove("holder");
  });

  test.skipIf(process.getuid?.() !== 0)(
    "an agent of another user is that user, and keeps out of the rest",
    async () => {
      const { pid = 0 } = await daemon.client.agents.create({
        agent_id: "stranger",
        template_id: "Stranger",
      });
      await printedPid(daemon, "stranger", "agent");
      const [, uid, home] =
        /^nobody:[^:]*:(\d+):[^:]*:[^:]*:([^:]*):/m.exec(readFileSync("/etc/passwd", "utf8")) ?? [];
      const nobody = Number(uid);
      const { items } = await daemon.client.agents.logs("stranger", { stream: "stdout" });
      expect(items.map(({ text }) => text)).toEqual([
        `uid ${nobody}`,
        expect.stringMatching(/^groups \d+$/),
        ...["reads its files", "kept out of the home", "sees no other runs"],
        `HOME ${home}, USER nobody`,
        `agent ${pid}`,
      ]);
      const shim = seeProcess(pid)?.ppid ?? 0;
      expect([uidOf(pid), uidOf(shim)]).toEqual([nobody, 0]);
      const token = environOf(pid)["OPENSTARRY_TOKEN_FILE"] ?? "";
      expect([statSync(token).mode & 0o777, statSync(dirname(token)).mode & 0o777]).toEqual([0o600, 0o700]);
      await daemon.client.agents.stop("stranger");
      expect((await daemon.client.agents.result("stranger")).result).toBe("left\n");
      expect(seeProcess(pid)).toBeUndefined();
      await daemon.client.agents.remove("stranger");
      expect(() => statSync(dirname(token))).toThrow("ENOENT");
    },
  );
});
