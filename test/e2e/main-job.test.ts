import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fixtureAgent, printedPid } from "../helpers/agents.js";
import { startDaemon, type TestDaemon } from "../helpers/daemon.js";
import { ask } from "../helpers/http-request.js";
import { type Operator, operatorOf } from "../helpers/operator.js";
import {
  allProcesses,
  cwdOf,
  environOf,
  processesOf,
  processesOfAgent,
  seeProcess,
} from "../helpers/processes.js";
import { readEvents } from "../helpers/read-events.js";
import { waitFor } from "../helpers/wait-for.js";

const SECRETS = {
  /** Of the daemon's environment, and nobody's business. */
  unnamed: "canary-of-the-daemon-51f0",
  /** Of the daemon's environment, and passed on by a template. */
  passed: "canary-passed-on-82c4",
  /** Given by the operator for one agent. */
  given: "canary-given-for-one-a97d",
};

const Analyst = {
  template_id: "DataAnalystAgent_v1",
  description: "Sums one column of a CSV file. Result {rows, sum}.",
  ...fixtureAgent("analyst.sh"),
  params: { file: { type: "string" }, column: { type: "integer", default: 2 } },
  restart: { policy: "never" },
};
const Sleeper = { template_id: "Sleeper_v1", ...fixtureAgent("sleeper.sh") };
const Master = { ...Sleeper, template_id: "MasterAgent_v1", children: { max: 4 } };
const Family = {
  template_id: "Family_v1",
  ...fixtureAgent("family.sh"),
  params: { topic: { type: "string" }, depth: { type: "integer", default: 3 } },
  env: { MODE: "batch" },
  pass_env: ["PASSED_ON", "NOT_SET_ANYWHERE?"],
};
const Reporter = {
  template_id: "Reporter_v1",
  ...fixtureAgent("heartbeats.mjs"),
  readiness: { type: "heartbeat", timeout: "20s" },
};

let daemon: TestDaemon;
let operator: Operator;

beforeAll(async () => {
  daemon = await startDaemon({
    config: { agents: [{ agent_id: "master", template_id: "MasterAgent_v1" }] },
    templates: [Master, Sleeper, Analyst, Family, Reporter],
    env: { UNNAMED: SECRETS.unnamed, PASSED_ON: SECRETS.passed },
  });
  operator = operatorOf(daemon.home);
});
afterAll(() => daemon?.stop());

const tokenOf = (pid: number) => readFileSync(environOf(pid)["OPENSTARRY_TOKEN_FILE"] ?? "", "utf8");

/** Answered is a start when the process is let go; a moment later it has become the agent. */
async function executed(pid: number): Promise<number> {
  await waitFor(() => seeProcess(pid)?.session === pid && environOf(pid)["OPENSTARRY_AGENT_ID"], {
    what: `process ${pid} to become the agent`,
  });
  return pid;
}

test("daemon, master and workers are processes in sessions of their own", async () => {
  const master = (await daemon.client.agents.get("master")).pid as number;
  const workers: number[] = [];
  for (const agent_id of ["worker_1", "worker_2"]) {
    // As the master does it, with its own token.
    const { port } = JSON.parse(readFileSync(join(daemon.home, "daemon.json"), "utf8"));
    const { status, json } = await ask({
      at: port,
      token: tokenOf(master),
      method: "POST",
      path: "/agents",
      body: { agent_id, template_id: "Sleeper_v1" },
    });
    expect([status, json]).toEqual([201, expect.objectContaining({ agent_id, parent_id: "master" })]);
    const pid = await executed(json["pid"] as number);
    expect(environOf(pid)).toMatchObject({ OPENSTARRY_PARENT_ID: "master" });
    workers.push(pid);
  }
  const pids = [daemon.pid() as number, master, ...workers];
  expect(pids.map((pid) => seeProcess(pid)?.session)).toEqual(pids);
  for (const pid of [master, ...workers]) {
    const shim = seeProcess(seeProcess(pid)?.ppid ?? 0);
    expect([shim?.session, shim?.ppid]).toEqual([shim?.pid, daemon.pid()]);
  }
  const list = await daemon.cli(["list", "--tree"]);
  expect(list.stdout).toMatch(/^master .*\n(├|└)─ worker_1 .*\n└─ worker_2 /m);
});

describe("one worker", () => {
  let pid: number;
  let environ: Record<string, string>;

  test("POST /agents answers 201 with a process that exists", async () => {
    const { status, json } = await operator.post("/agents", {
      agent_id: "data_worker_007",
      template_id: "Family_v1",
      params: { topic: "$(id) `id`" },
      env: { GIVEN: SECRETS.given },
    });
    expect([status, json]).toEqual([
      201,
      expect.objectContaining({ agent_id: "data_worker_007", state: "running", desired: "running" }),
    ]);
    pid = json["pid"] as number;
    expect(seeProcess(pid)?.command).toContain("family.sh");
  });

  test("it finds in its environment what it is promised, and nothing else", async () => {
    environ = environOf(await executed(pid));
    const inherited = ["HOME", "LANG", "TZ", "TMPDIR", "USER"].filter((name) => process.env[name]);
    expect(Object.keys(environ).sort()).toEqual(
      [
        ...["PATH", "PWD", "PYTHONUNBUFFERED", ...inherited],
        ...["AGENT_ID", "TEMPLATE_ID", "RUN_ID", "HOME", "API_URL", "API_SOCKET", "BUS_URL", "STATE_URL"].map(
          own,
        ),
        ...["TOKEN_FILE", "PARAMS_FILE", "RESULT_FILE"].map(own),
        ...["MODE", "PASSED_ON", "GIVEN"],
      ].sort(),
    );
    const { url, socket } = JSON.parse(readFileSync(join(daemon.home, "daemon.json"), "utf8"));
    expect(environ).toMatchObject({
      OPENSTARRY_AGENT_ID: "data_worker_007",
      OPENSTARRY_TEMPLATE_ID: "Family_v1",
      OPENSTARRY_HOME: daemon.home,
      OPENSTARRY_API_URL: url,
      OPENSTARRY_API_SOCKET: socket,
      PYTHONUNBUFFERED: "1",
      PWD: cwdOf(pid),
      MODE: "batch",
      PASSED_ON: SECRETS.passed,
      GIVEN: SECRETS.given,
    });
  });

  test("its files are its own: parameters, a token that is this run's, a place for its result", async () => {
    const mode = (path: string) => (statSync(path).mode & 0o777).toString(8);
    const [params = "", token = "", result = ""] = ["PARAMS_FILE", "TOKEN_FILE", "RESULT_FILE"].map(
      (name) => environ[own(name)],
    );
    expect(JSON.parse(readFileSync(params, "utf8"))).toEqual({ topic: "$(id) `id`", depth: 3 });
    expect([mode(params), mode(token), mode(dirname(result))]).toEqual(["600", "600", "700"]);
    expect(existsSync(result)).toBe(false);
    const { json } = await ask({
      at: environ[own("API_SOCKET")] ?? "",
      token: tokenOf(pid),
      path: "/whoami",
    });
    expect(json).toMatchObject({
      kind: "agent",
      agent_id: "data_worker_007",
      run_id: environ[own("RUN_ID")],
    });
  });

  test("DELETE ends the whole tree and answers with the final record; a second one is 404", async () => {
    const tree = [pid];
    for (const word of ["child", "grandchild"]) tree.push(await printedPid(daemon, "data_worker_007", word));
    expect(tree.map((it) => seeProcess(it)?.session)).toEqual([pid, pid, tree[2]]);
    const token = tokenOf(pid);
    const { status, json } = await operator.delete("/agents/data_worker_007");
    expect([status, json]).toEqual([
      200,
      expect.objectContaining({
        state: "stopped",
        last_exit: expect.objectContaining({
          ...{ kind: "signaled", signal: "SIGTERM", pid, run_id: environ[own("RUN_ID")] },
          ...{ cause: "stop_request", actor: "operator", success: true },
          output_tail: expect.stringContaining("grandchild"),
        }),
      }),
    ]);
    expect(json).not.toHaveProperty("pid");
    expect(tree.map(seeProcess)).toEqual([undefined, undefined, undefined]);
    await waitFor(() => processesOfAgent(daemon.home, "data_worker_007").length === 0, {
      what: "the end of its shim",
      diagnose: () => processesOfAgent(daemon.home, "data_worker_007"),
    });
    expect(existsSync(join(daemon.home, "agents", "data_worker_007"))).toBe(false);
    const again = await operator.delete("/agents/data_worker_007");
    expect([again.status, again.json]).toEqual([404, expect.objectContaining({ code: "agent_not_found" })]);
    const late = await ask({ at: environ[own("API_SOCKET")] ?? "", token, path: "/whoami" });
    expect([late.status, late.json["code"]]).toEqual([401, "unauthenticated"]);
  });
});

test("an agent does its work on real input, and what it left can be had", async () => {
  const file = join(daemon.project, "prices.csv");
  writeFileSync(file, "name,price\nbread,3\nmilk,1.5\nsalt,0.5\n");
  const started = await operator.post("/agents", {
    agent_id: "analyst",
    template_id: "DataAnalystAgent_v1",
    params: { file },
  });
  expect(started.status).toBe(201);
  const ended = await operator.get("/agents/analyst?wait_for=ended&timeout=20s");
  expect(ended.json).toMatchObject({
    state: "exited",
    last_exit: { kind: "exited", code: 0, cause: "self" },
  });
  const { json } = await operator.get("/agents/analyst/result");
  expect(JSON.parse(json["result"] as string)).toEqual({ rows: 3, sum: 5 });
  const logs = (await operator.get("/agents/analyst/logs")).json["items"] as { text: string }[];
  expect(logs.map(({ text }) => text)).toEqual([`reading ${file}`, "done"]);
  const why = await operator.get("/agents/analyst/why");
  expect(why.json).toMatchObject({
    state: "exited",
    last_runs: [{ status: "exit 0: success", cause: "self" }],
  });
});

test("wait_for=ready answers when the agent says that it is", async () => {
  const { status, json } = await operator.post("/agents?wait_for=ready&timeout=20s", {
    agent_id: "reporter",
    template_id: "Reporter_v1",
  });
  expect([status, json]).toEqual([
    201,
    expect.objectContaining({ state: "running", ready_at: expect.any(String), status: "at work" }),
  ]);
  expect((await operator.get("/agents/reporter?wait_for=ready")).json).toMatchObject({ pid: json["pid"] });
});

describe("a start that is asked for again and again", () => {
  test("with one Idempotency-Key gives the same answer and one process", async () => {
    const headers = { "idempotency-key": "start-7" };
    const body = { agent_id: "once", template_id: "Sleeper_v1" };
    const first = await operator.post("/agents", body, headers);
    const second = await operator.post("/agents", body, headers);
    expect([first.status, second.status, second.json]).toEqual([201, 201, first.json]);
    const other = await operator.post("/agents", { ...body, labels: { a: "b" } }, headers);
    expect([other.status, other.json["code"]]).toEqual([422, "idempotency_mismatch"]);
    expect(agentsProper("once")).toEqual([first.json["pid"]]);
  });

  test("a hundred times at once makes one agent and 99 refusals", async () => {
    const body = { agent_id: "wanted", template_id: "Sleeper_v1" };
    const answers = await Promise.all(Array.from({ length: 100 }, () => operator.post("/agents", body)));
    const made = answers.filter(({ status }) => status === 201);
    const refused = answers.filter(({ status, json }) => status === 409 && json["code"] === "agent_exists");
    expect([made.length, refused.length]).toEqual([1, 99]);
    expect(agentsProper("wanted")).toEqual([made[0]?.json["pid"]]);
  });
});

test("the stream of events resumes where it broke, without loss or repetition", async () => {
  const port = Number(new URL(JSON.parse(readFileSync(join(daemon.home, "daemon.json"), "utf8")).url).port);
  const token = readFileSync(join(daemon.home, "token"), "utf8").trim();
  const { last_event_id = 0 } = await daemon.client.daemon.status();
  const stream = { at: port, token, path: "/events?agent_id=streamed" };
  const first = readEvents({ ...stream, lastEventId: last_event_id, until: (events) => events.length === 2 });
  await operator.post("/agents", { agent_id: "streamed", template_id: "Sleeper_v1" });
  const seen = await first;
  await operator.delete("/agents/streamed");
  const rest = await readEvents({
    ...stream,
    lastEventId: seen.at(-1)?.id ?? 0,
    until: (events) => events.at(-1)?.event === "agent.deleted",
  });
  const all = await readEvents({
    ...stream,
    lastEventId: last_event_id,
    until: (events) => events.at(-1)?.event === "agent.deleted",
  });
  expect([...seen, ...rest]).toEqual(all);
  expect(all.map(({ event }) => event)).toEqual([
    ...["agent.created", "agent.state", "agent.state", "agent.exited", "agent.state", "agent.deleted"],
  ]);
});

test("the API describes itself", async () => {
  const { status, json } = await operator.get("/openapi.json");
  const paths = json["paths"] as Record<string, Record<string, unknown>>;
  expect([status, json["openapi"]]).toEqual([200, expect.stringMatching(/^3\.1\./)]);
  const described = Object.entries(paths).flatMap(([path, verbs]) =>
    Object.keys(verbs).map((verb) => `${verb} ${path}`),
  );
  expect(described).toEqual(
    expect.arrayContaining([
      ...["post /agents", "get /agents", "get /agents/{agent_id}", "delete /agents/{agent_id}"],
      ...["post /agents/{agent_id}/stop", "get /agents/{agent_id}/why", "get /events", "get /templates"],
    ]),
  );
});

// Last, when everything has left its traces.
test("no secret is in an answer, the log, the journal or anybody's command line", async () => {
  for (const path of [
    "/agents",
    "/daemon",
    "/plugins",
    "/infrastructure",
    "/templates",
    "/agents/master/why",
  ])
    expect((await operator.get(path)).status).toBe(200);
  const operatorToken = readFileSync(join(daemon.home, "token"), "utf8").trim();
  const masterToken = tokenOf((await daemon.client.agents.get("master")).pid as number);
  const files = ["daemon.log", "journal.db", "journal.db-wal", "daemon.json", "http-api.json"]
    .map((name) => join(daemon.home, name))
    .filter(existsSync)
    .map((path) => [path, readFileSync(path, "latin1")] as const);
  expect(files.length).toBeGreaterThanOrEqual(4);
  const commands = allProcesses().map(({ pid, command }) => [`command line of ${pid}`, command] as const);
  const answers = operator.answers.map((text, index) => [`answer ${index}`, text] as const);
  for (const secret of [...Object.values(SECRETS), operatorToken, masterToken]) {
    expect(secret.length).toBeGreaterThan(10);
    const holders = [...files, ...commands, ...answers].filter(([, text]) => text.includes(secret));
    expect(holders.map(([name]) => name)).toEqual([]);
  }
  const knowing = processesOf(daemon.home).filter(({ pid }) =>
    JSON.stringify(environOf(pid)).includes(SECRETS.unnamed),
  );
  expect(knowing.map(({ pid }) => pid)).toEqual([daemon.pid()]);
});

function own(name: string): string {
  return `OPENSTARRY_${name}`;
}

/** The agent's processes without its shim: the leaders of the run's own sessions. */
function agentsProper(agentId: string): number[] {
  const all = processesOfAgent(daemon.home, agentId);
  return all.filter(({ ppid }) => all.some(({ pid }) => pid === ppid)).map(({ pid }) => pid);
}
