import { afterEach, describe, expect, test } from "vitest";
import { z } from "zod";
import {
  type Agent,
  type DaemonEvent,
  definePlugin,
  type LogLine,
  type LogQuery,
  OpenStarryError,
  type Operation,
  operation,
  type Principal,
  probe as probeSlot,
  SpawnDeferred,
  type Spawner,
  SpawnVetoed,
  type StreamItem,
} from "../../../../core/index.js";
import { HTTP_STATUSES } from "../../../../plugins/http-api/statuses.js";
import operationAgents from "../../../../plugins/operation-agents/index.js";
import { agentSchema } from "../../../../plugins/operation-agents/schemas.js";
import {
  allowAll,
  type MemorySpawner,
  memoryJournalState,
  memorySpawner,
} from "../../../contract/memory-plugins.js";
import { createTestKernel, type TestKernel, type TestKernelOptions } from "../../../contract/test-kernel.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";
import { waitFor } from "../../../helpers/wait-for.js";

const OPERATOR: Principal = { kind: "operator", id: "operator" };
const kernels: TestKernel[] = [];

/** The operations as the kernel's table holds them. */
const table = new WeakMap<TestKernel, ReadonlyMap<string, Operation>>();

async function started(options: TestKernelOptions = {}): Promise<TestKernel> {
  let operations: ReadonlyMap<string, Operation> = new Map();
  const reader = definePlugin({
    name: "reader",
    apiVersion: 1,
    optional: [operation],
    options: z.strictObject({}),
    setup: (ctx) => ({
      start() {
        operations = ctx.use(operation) as unknown as ReadonlyMap<string, Operation>;
      },
    }),
  });
  const kernel = createTestKernel({
    authorizer: allowAll,
    ...options,
    plugins: [operationAgents(), reader(), ...(options.plugins ?? [])],
  });
  kernels.push(kernel);
  await kernel.start();
  table.set(kernel, operations);
  return kernel;
}

afterEach(async () => {
  for (const kernel of kernels.splice(0)) await kernel.stop({ agents: "keep", reason: "the test is over" });
});

const asAgent = (agent: Agent): Principal => ({
  kind: "agent",
  id: `agent:${agent.agent_id}`,
  agentId: agent.agent_id,
  runId: agent.run_id ?? "",
});

type CallOptions = Parameters<TestKernel["dispatch"]>[3];

/** Asks as the operator unless told otherwise; answers the output. */
function ask<T = Agent>(
  kernel: TestKernel,
  name: string,
  input: unknown,
  options: CallOptions & { as?: Principal } = {},
): Promise<T> {
  const { as = OPERATOR, ...call } = options;
  return kernel.dispatch(name, input, as, call) as Promise<T>;
}

/** The status that the operation's route answers an output with. */
function status(kernel: TestKernel, name: string, output: unknown): number {
  return table.get(kernel)?.get(name)?.http?.status?.(output) ?? 200;
}

const create = (kernel: TestKernel, input: Record<string, unknown>, options = {}) =>
  ask(kernel, "agents.create", { template_id: "Plain", ...input }, options);

/** The error, with the HTTP status that it is answered with. */
const failure = (promise: Promise<unknown>): Promise<OpenStarryError> =>
  promise.then(
    (value) => Promise.reject(new Error(`expected a failure, got ${JSON.stringify(value)}`)),
    (error: OpenStarryError) => Object.assign(error, { status: HTTP_STATUSES[error.code] }),
  );

/** A kernel plugin with one `beforeSpawn` tap. */
function gate(tap: () => void) {
  return definePlugin({
    name: "gate",
    apiVersion: 1,
    options: z.strictObject({}),
    setup: (ctx) =>
      ctx.hooks.beforeSpawn.tap("gate", (spec) => {
        tap();
        return spec;
      }),
  })();
}

describe("agents.create", () => {
  test("201 with the agent once its process exists", async () => {
    const kernel = await started();
    const agent = await create(kernel, { agent_id: "a", labels: { team: "x" } });
    expect(agent).toMatchObject({ agent_id: "a", state: "running", pid: 100_000, labels: { team: "x" } });
    expect(status(kernel, "agents.create", agent)).toBe(201);
    expect(kernel.state.events[1]).toMatchObject({
      type: "agent.created",
      data: { actor: "operator", reason: "started by operator", template_id: "Plain" },
    });
    expect(agentSchema.safeParse(JSON.parse(JSON.stringify(agent))).error).toBeUndefined();
  });

  test("an id is made up when none is given", async () => {
    const kernel = await started();
    const agent = await create(kernel, {});
    expect(agent.agent_id).toMatch(/^Plain-[a-z0-9]{6}$/);
  });

  test("202 with the reason while it has to wait", async () => {
    const kernel = await started({ templates: { Needy: { requires: ["agent:other"] }, Plain: {} } });
    const waiting = await create(kernel, { agent_id: "a", template_id: "Needy" });
    expect(waiting).toMatchObject({
      state: "pending",
      reason: "waits for agent:other, which does not exist",
    });
    expect(status(kernel, "agents.create", waiting)).toBe(202);
  });

  test("202 while a policy puts the start off", async () => {
    const defer = gate(() => {
      throw new SpawnDeferred("quiet hours", { retryAfterMs: 60_000 });
    });
    const kernel = await started({ plugins: [defer] });
    const waiting = await create(kernel, { agent_id: "a" });
    expect(waiting).toMatchObject({ state: "pending", reason: "quiet hours" });
    expect(status(kernel, "agents.create", waiting)).toBe(202);
  });

  test("one that has run and ended at once is 201 too", async () => {
    const spawner = memorySpawner();
    const kernel = await started({
      spawner: {
        ...spawner,
        async spawn(spec, commit) {
          const handle = await spawner.spawn(spec, commit);
          spawner.run(spec.agentId).end({ kind: "exited", code: 0 });
          return handle;
        },
      },
    });
    const agent = await create(kernel, { agent_id: "a" });
    expect(["running", "exited"]).toContain(agent.state);
    expect(status(kernel, "agents.create", agent)).toBe(201);
  });

  test("start: false makes the record only", async () => {
    const kernel = await started();
    const agent = await create(kernel, { agent_id: "a", start: false });
    expect(agent).toMatchObject({ state: "stopped", desired: "stopped" });
    expect(status(kernel, "agents.create", agent)).toBe(201);
    expect(kernel.spawner.runs).toHaveLength(0);
  });

  test("dry_run checks and changes nothing", async () => {
    const kernel = await started();
    const events = kernel.state.events.length;
    const draft = await create(kernel, { agent_id: "a", dry_run: true }, { idempotencyKey: "k" });
    expect(draft).toMatchObject({ agent_id: "a", dry_run: true });
    expect(status(kernel, "agents.create", draft)).toBe(200);
    expect(kernel.agents.list()).toEqual([]);
    expect(kernel.state.events).toHaveLength(events);
    expect(await failure(create(kernel, { template_id: "Plane", dry_run: true }))).toMatchObject({
      code: "template_not_found",
      hint: expect.stringContaining('did you mean "Plain"?'),
    });
  });

  test("wait_for ready answers when it is ready", async () => {
    const templates = { Slow: { readiness: { type: "never", timeout: "1h" } } };
    const kernel = await started({ templates, plugins: [silentProbe()] });
    const answer = ask(kernel, "agents.create", {
      agent_id: "a",
      template_id: "Slow",
      wait_for: "ready",
      timeout: "10s",
    });
    await waitFor(() => kernel.agents.get("a")?.state === "starting", { what: "the start" });
    await kernel.reports.ready("a", kernel.agents.get("a")?.run_id ?? "");
    expect(await answer).toMatchObject({ state: "running" });
  });

  test("wait_for ready answers the agent as it is when the time is over", async () => {
    const clock = createFakeClock();
    const templates = { Slow: { readiness: { type: "never", timeout: "1h" } } };
    const kernel = await started({ clock, templates, plugins: [silentProbe()] });
    const answer = ask(kernel, "agents.create", {
      agent_id: "a",
      template_id: "Slow",
      wait_for: "ready",
      timeout: "10s",
    });
    await waitFor(() => kernel.agents.get("a")?.state === "starting", { what: "the start" });
    await clock.advance(10_000);
    const agent = await answer;
    expect(agent).toMatchObject({ state: "starting" });
    expect(status(kernel, "agents.create", agent)).toBe(201);
  });

  test("a start that a policy vetoes is an error, and the record is kept", async () => {
    const veto = gate(() => {
      throw new SpawnVetoed("no agents on Sundays");
    });
    const kernel = await started({ plugins: [veto] });
    const refused = await failure(create(kernel, { agent_id: "v" }));
    expect(refused).toMatchObject({ code: "spawn_vetoed", status: 409 });
    expect(refused.message).toContain("agent v may not start");
    expect(refused.message).toContain("no agents on Sundays");
    expect(refused.hint).toContain("POST /agents/v/start");
    expect(refused.hint).toContain("DELETE /agents/v");
    expect(kernel.agents.get("v")).toMatchObject({ state: "failed" });
  });

  test("a start that could not be made is spawn_failed once it is given up", async () => {
    const spawner = memorySpawner();
    const templates = { Once: { restart: { max_restarts: 0 } } };
    const kernel = await started({ spawner, templates });
    spawner.failNext(new OpenStarryError("spawn_failed", { detail: "fork: no memory" }));
    const error = await failure(create(kernel, { agent_id: "a", template_id: "Once" }));
    expect(error).toMatchObject({ code: "spawn_failed", data: { agent_id: "a" } });
    expect(error.message).toContain("fork: no memory");
    expect(kernel.agents.get("a")?.state).toBe("failed");
  });

  test("an id that is taken: the hint fits the one that has it", async () => {
    const kernel = await started();
    await create(kernel, { agent_id: "live" });
    await create(kernel, { agent_id: "dead", start: false });
    const live = await failure(create(kernel, { agent_id: "live" }));
    expect(live).toMatchObject({ code: "agent_exists", status: 409 });
    expect(live.hint).toMatch(/another agent_id/);
    const dead = await failure(create(kernel, { agent_id: "dead" }));
    expect(dead.hint).toMatch(/POST \/agents\/dead\/start.*DELETE \/agents\/dead/);
  });

  test("an agent is told no more of a stranger than that its id is taken", async () => {
    const kernel = await started();
    const asker = asAgent(await create(kernel, { agent_id: "asker" }));
    await create(kernel, { agent_id: "stranger" });
    await create(kernel, { agent_id: "own" }, { as: asker });
    const hidden = {
      code: "agent_exists",
      message: 'there is an agent "stranger" already',
      hint: "choose another agent_id",
    };
    for (const input of [{ agent_id: "stranger" }, { agent_id: "stranger", dry_run: true }]) {
      expect(await failure(create(kernel, input, { as: asker }))).toMatchObject(hidden);
      expect((await failure(create(kernel, input))).message).toContain("it is running");
    }
    const keyed = create(kernel, { agent_id: "stranger" }, { as: asker, idempotencyKey: "k" });
    expect(await failure(keyed)).toMatchObject(hidden);
    const own = await failure(create(kernel, { agent_id: "own" }, { as: asker }));
    expect(own.message).toContain("it is running");
  });

  test("an agent makes no records that never count as its children", async () => {
    const kernel = await started();
    const parent = asAgent(await create(kernel, { agent_id: "parent" }));
    const refused = await failure(create(kernel, { agent_id: "a", start: false }, { as: parent }));
    expect(refused).toMatchObject({ code: "forbidden", hint: expect.stringContaining("leave start out") });
    expect(kernel.agents.get("a")).toBeUndefined();
  });

  test("a wait that ends because its call is given up is no answer", async () => {
    const templates = { Slow: { readiness: { type: "never", timeout: "1h" } } };
    const kernel = await started({ templates, plugins: [silentProbe()] });
    const call = new AbortController();
    const input = { agent_id: "a", template_id: "Slow", wait_for: "ready" };
    const answer = failure(ask(kernel, "agents.create", input, { signal: call.signal }));
    await waitFor(() => kernel.agents.get("a")?.state === "starting", { what: "the start" });
    call.abort();
    expect(await answer).toMatchObject({ code: "timeout" });
    const get = ask(kernel, "agents.get", { agent_id: "a", wait_for: "ready" }, { signal: call.signal });
    expect(await failure(get)).toMatchObject({ code: "timeout" });
  });

  test("an agent becomes the parent, and the operator's fields are not its own", async () => {
    const kernel = await started();
    const parent = await create(kernel, { agent_id: "parent" });
    const child = await create(kernel, { agent_id: "child" }, { as: asAgent(parent) });
    expect(child.parent_id).toBe("parent");
    for (const field of [{ env: { A: "b" } }, { template_id: undefined, command: ["/bin/true"] }]) {
      expect(await failure(create(kernel, field, { as: asAgent(parent) }))).toMatchObject({
        code: "forbidden",
        status: 403,
      });
    }
  });

  test.each([
    [{ template_id: undefined }, /template_id is missing/],
    [{ command: ["/bin/true"] }, /both template_id and command/],
    [{ cwd: "/tmp" }, /cwd goes with command only/],
    [{ template_id: undefined, command: ["/bin/true"], params: {} }, /params goes with template_id only/],
    [{ agent_id: "../etc" }, /agent_id/],
    [{ agentid: "a" }, /unknown key "agentid" \(did you mean "agent_id"\?\)/],
    [{ timeout: "11m" }, /at most 10m/],
    [{ timeout: "fast" }, /expected a duration/],
    [{ env: { "A=B": "c" } }, /env.A=B: .*expected a variable name/],
    [{ env: { OPENSTARRY_AGENT_ID: "x" } }, /the daemon's own/],
    [{ env: { A: "a\0b" } }, /NUL/],
    [{ params: [] }, /params/],
  ])("refuses %o", async (input, detail) => {
    const kernel = await started();
    const error = await failure(create(kernel, input));
    expect(error).toMatchObject({ code: "input_invalid", status: 400 });
    expect(error.message).toMatch(detail);
    expect(kernel.agents.list()).toEqual([]);
  });

  describe("env", () => {
    const templates = {
      Plain: {},
      Own: { env: { PATH: "/opt/bin" }, pass_env: ["NODE_OPTIONS?"] },
    };

    test("reaches the run, and neither record nor event", async () => {
      const kernel = await started();
      await create(kernel, { agent_id: "a", env: { KEY: "canary-8d1" } });
      expect(kernel.state.secrets.get("a")).toEqual({ KEY: "canary-8d1" });
      expect(JSON.stringify([kernel.agents.list(), kernel.state.events])).not.toContain("canary-8d1");
    });

    test.each(["LD_PRELOAD", "NODE_OPTIONS", "BASH_ENV", "PATH", "PYTHONPATH", "ENV"])(
      "%s is refused unless the template names it",
      async (name) => {
        const kernel = await started({ templates });
        const error = await failure(create(kernel, { env: { [name]: "x" } }));
        expect(error).toMatchObject({ code: "env_forbidden", status: 400 });
        expect(error.message).toContain(name);
        expect(error.message).not.toContain('"x"');
        const inline = { template_id: undefined, command: ["/bin/true"], env: { [name]: "x" } };
        expect(await failure(create(kernel, inline))).toMatchObject({ code: "env_forbidden" });
      },
    );

    test("what the template names may be set", async () => {
      const kernel = await started({ templates });
      const env = { PATH: "/usr/bin", NODE_OPTIONS: "--no-warnings" };
      await create(kernel, { agent_id: "a", template_id: "Own", env });
      expect(kernel.state.secrets.get("a")).toEqual(env);
    });
  });

  describe("a command instead of a template", () => {
    const run = (kernel: TestKernel, input: Record<string, unknown>) =>
      ask(kernel, "agents.create", { agent_id: "a", ...input });

    test("runs it as it stands, once", async () => {
      const kernel = await started();
      const args = ["--name={{params.x}}", "{{agent_id}}", "$(id)", "two words"];
      const agent = await run(kernel, { command: ["./tool", ...args], cwd: "/opt/{{x}}" });
      expect(agent).toMatchObject({ template_id: "command", state: "running" });
      expect(kernel.spawner.runs.at(-1)?.spec).toMatchObject({
        command: "./tool",
        args,
        cwd: "/opt/{{x}}",
        baseDir: "/opt/{{x}}",
      });
      kernel.spawner.run("a").end({ kind: "exited", code: 1 });
      expect(await kernel.agents.wait("a", "ended")).toMatchObject({ state: "exited" });
    });

    test("can be started again", async () => {
      const kernel = await started();
      await run(kernel, { command: ["/bin/tool"] });
      await ask(kernel, "agents.stop", { agent_id: "a" });
      expect(await ask(kernel, "agents.start", { agent_id: "a" })).toMatchObject({ state: "running" });
    });

    test("a relative path needs a folder", async () => {
      const kernel = await started();
      expect(await failure(run(kernel, { command: ["./tool"] }))).toMatchObject({
        code: "template_invalid",
        message: expect.stringContaining('"./tool" is relative'),
      });
      expect(await failure(run(kernel, { command: ["tool"], cwd: "here" }))).toMatchObject({
        code: "template_invalid",
      });
    });
  });
});

describe("Idempotency-Key", () => {
  const key = { idempotencyKey: "key-1" };

  test("the same request again gets the same answer", async () => {
    const kernel = await started();
    const first = await create(kernel, { labels: { a: "1", b: "2" } }, key);
    kernel.spawner.run(first.agent_id).end({ kind: "exited", code: 0 });
    await kernel.agents.wait(first.agent_id, "ended");
    const again = await create(kernel, { labels: { b: "2", a: "1" } }, key);
    expect(again).toEqual(first);
    expect(kernel.agents.list()).toHaveLength(1);
  });

  test("an agent that is gone is not answered, nor another of its id", async () => {
    const kernel = await started();
    const { created_at } = await create(kernel, { agent_id: "a" }, key);
    await ask(kernel, "agents.delete", { agent_id: "a" });
    const gone = {
      code: "agent_not_found",
      message: "the agent that this Idempotency-Key made is gone",
      hint: "use a new Idempotency-Key to make another",
    };
    expect(await failure(create(kernel, { agent_id: "a" }, key))).toMatchObject(gone);
    await waitFor(() => new Date().toISOString() > created_at, { what: "another time of creation" });
    await create(kernel, { agent_id: "a" });
    expect(await failure(create(kernel, { agent_id: "a" }, key))).toMatchObject(gone);
  });

  test("at the same time as well", async () => {
    const kernel = await started();
    const answers = await Promise.all(Array.from({ length: 20 }, () => create(kernel, {}, key)));
    expect(new Set(answers.map(({ agent_id }) => agent_id)).size).toBe(1);
    expect(kernel.spawner.runs).toHaveLength(1);
  });

  test("another body is refused, whether the first is done or not", async () => {
    const kernel = await started();
    const first = create(kernel, { agent_id: "a" }, key);
    const other = { code: "idempotency_mismatch", status: 422 };
    expect(await failure(create(kernel, { agent_id: "b" }, key))).toMatchObject(other);
    await first;
    expect(await failure(create(kernel, { agent_id: "b" }, key))).toMatchObject(other);
    expect(await failure(create(kernel, { agent_id: "a", env: { A: "1" } }, key))).toMatchObject(other);
  });

  test("keys are of one principal each", async () => {
    const kernel = await started();
    const parent = await create(kernel, { agent_id: "parent" }, key);
    const child = await create(kernel, {}, { ...key, as: asAgent(parent) });
    expect(child.agent_id).not.toBe("parent");
  });

  test("how long to wait is not part of the request, and a repeated wait is a wait", async () => {
    const templates = { Slow: { readiness: { type: "never", timeout: "1h" } } };
    const kernel = await started({ templates, plugins: [silentProbe()] });
    const input = { template_id: "Slow", agent_id: "a" };
    expect(await create(kernel, input, key)).toMatchObject({ state: "starting" });
    const again = create(kernel, { ...input, wait_for: "ready", timeout: "10s" }, key);
    await kernel.reports.ready("a", kernel.agents.get("a")?.run_id ?? "");
    expect(await again).toMatchObject({ state: "running" });
  });

  test("a request that was refused may be mended and sent again", async () => {
    const kernel = await started({ templates: { T: { params: { question: { type: "string" } } } } });
    expect(await failure(create(kernel, { template_id: "T" }, key))).toMatchObject({
      code: "params_invalid",
    });
    const params = { question: "why?" };
    expect(await create(kernel, { template_id: "T", params }, key)).toMatchObject({ state: "running" });
  });

  test("a start that failed for good fails again in the same words", async () => {
    let vetoes = 0;
    const veto = gate(() => {
      vetoes++;
      throw new SpawnVetoed("no agents on Sundays");
    });
    const kernel = await started({ plugins: [veto] });
    const first = await failure(create(kernel, { agent_id: "v" }, key));
    const again = await failure(create(kernel, { agent_id: "v" }, key));
    expect(again).toMatchObject({ code: "spawn_vetoed", message: first.message, hint: first.hint });
    expect(vetoes).toBe(1);
  });

  test("a later daemon that does not know the answer tells the agent as it is", async () => {
    const state = memoryJournalState();
    const spawner = memorySpawner();
    const kernel = await started({ state, spawner });
    const first = await create(kernel, {}, key);
    // As if the daemon had died before it could keep the answer.
    for (const [name, memo] of state.memos) {
      const { agent: _, ...value } = memo.value as Record<string, unknown>;
      state.memos.set(name, { ...memo, value });
    }
    await kernel.stop({ agents: "keep", reason: "a crash" });
    const later = await started({ state, spawner });
    const again = await create(later, {}, key);
    expect(again).toMatchObject({ agent_id: first.agent_id, run_id: first.run_id, state: "running" });
    expect(later.agents.list()).toHaveLength(1);
  });

  test("what is kept tells neither the key nor a value", async () => {
    const kernel = await started();
    await create(kernel, { env: { TOKEN: "canary-41f" } }, { idempotencyKey: "canary-key" });
    const kept = JSON.stringify([...kernel.state.memos]);
    expect(kept).not.toMatch(/canary/);
    expect(kernel.state.memos.size).toBe(1);
  });
});

describe("reading", () => {
  test("a list can be filtered, and comes in pages", async () => {
    const kernel = await started({ templates: { Plain: {}, Other: {} } });
    for (let index = 0; index < 5; index++) {
      await create(kernel, { agent_id: `p${index}`, labels: { n: `${index}`, team: "x" } });
    }
    const other = await create(kernel, { agent_id: "o", template_id: "Other", start: false });
    const ids = async (input: Record<string, unknown>) => {
      const { items } = await ask<{ items: Agent[] }>(kernel, "agents.list", input);
      return items.map(({ agent_id }) => agent_id).sort();
    };
    expect(await ids({})).toEqual(["o", "p0", "p1", "p2", "p3", "p4"]);
    expect(await ids({ state: "stopped" })).toEqual(["o"]);
    expect(await ids({ template_id: "Other" })).toEqual([other.agent_id]);
    expect(await ids({ label: "n=3" })).toEqual(["p3"]);
    expect(await ids({ label: "team" })).toHaveLength(5);
    expect(await ids({ label: "team=y" })).toEqual([]);
    expect(await ids({ label: "toString" })).toEqual([]);

    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await ask<{ items: Agent[]; next_cursor?: string }>(kernel, "agents.list", {
        limit: 4,
        cursor,
      });
      seen.push(...page.items.map(({ agent_id }) => agent_id));
      cursor = page.next_cursor;
      // A page that was read is not read again because one of its agents is gone.
      if (cursor) await ask(kernel, "agents.delete", { agent_id: seen[0] });
    } while (cursor !== undefined);
    expect(seen.sort()).toEqual(["o", "p0", "p1", "p2", "p3", "p4"]);
  });

  test.each([
    { cursor: "nonsense" },
    { cursor: Buffer.from("x y").toString("base64url") },
    { limit: 1e9 },
    { label: "=x" },
  ])("refuses %o", async (input) => {
    const kernel = await started();
    expect(await failure(ask(kernel, "agents.list", input))).toMatchObject({ code: "input_invalid" });
  });

  test("an agent sees itself and what is below it", async () => {
    const kernel = await started();
    const master = await create(kernel, { agent_id: "master" });
    await create(kernel, { agent_id: "stranger" });
    const child = await create(kernel, { agent_id: "child" }, { as: asAgent(master) });
    await create(kernel, { agent_id: "grandchild" }, { as: asAgent(child) });
    const seen = async (as: Principal) => {
      const { items } = await ask<{ items: Agent[] }>(kernel, "agents.list", {}, { as });
      return items.map(({ agent_id }) => agent_id).sort();
    };
    expect(await seen(asAgent(master))).toEqual(["child", "grandchild", "master"]);
    expect(await seen(asAgent(child))).toEqual(["child", "grandchild"]);
    expect(await seen(OPERATOR)).toHaveLength(4);
  });

  test("an unknown id gets the nearest that the caller may know", async () => {
    const kernel = await started();
    const master = await create(kernel, { agent_id: "worker_master" });
    await create(kernel, { agent_id: "worker_1" });
    const operators = await failure(ask(kernel, "agents.get", { agent_id: "worker_2" }));
    expect(operators).toMatchObject({ code: "agent_not_found", status: 404 });
    expect(operators.hint).toBe('did you mean "worker_1"?');
    const agents = await failure(
      ask(kernel, "agents.get", { agent_id: "worker_2" }, { as: asAgent(master) }),
    );
    expect(agents.hint).not.toContain("worker_1");
  });

  test("get waits for the end, and answers the agent as it is when the time is over", async () => {
    const clock = createFakeClock();
    const kernel = await started({ clock });
    await create(kernel, { agent_id: "a" });
    const early = ask(kernel, "agents.get", { agent_id: "a", wait_for: "ended", timeout: "5s" });
    await clock.advance(5_000);
    expect(await early).toMatchObject({ state: "running" });
    const late = ask(kernel, "agents.get", { agent_id: "a", wait_for: "ended", timeout: "10m" });
    kernel.spawner.run("a").end({ kind: "exited", code: 0 });
    expect(await late).toMatchObject({ state: "exited" });
  });

  test("result: of the newest run that left one", async () => {
    const kernel = await started();
    await create(kernel, { agent_id: "a", start: false });
    const asked = () => ask<{ result: string }>(kernel, "agents.result", { agent_id: "a" });
    expect(await failure(asked())).toMatchObject({
      code: "result_not_found",
      message: expect.stringContaining("has not run yet"),
    });
    await ask(kernel, "agents.start", { agent_id: "a" });
    expect(await failure(asked())).toMatchObject({ hint: expect.stringContaining("wait_for=ended") });
    kernel.spawner.run("a").end({ status: { kind: "exited", code: 0 }, result: '{"answer":42}' });
    await kernel.agents.wait("a", "ended");
    const run_id = kernel.agents.get("a")?.run_id;
    expect(await asked()).toMatchObject({
      agent_id: "a",
      run_id,
      result: '{"answer":42}',
      exit: { success: true },
    });
    await ask(kernel, "agents.start", { agent_id: "a" });
    expect(await asked()).toMatchObject({ run_id, result: '{"answer":42}' });
  });
});

describe("control", () => {
  test("stop, start, restart and signal answer the agent after the transition", async () => {
    const kernel = await started();
    const { run_id } = await create(kernel, { agent_id: "a" });
    const stopped = await ask(kernel, "agents.stop", { agent_id: "a" });
    expect(stopped).toMatchObject({
      state: "stopped",
      last_exit: {
        cause: "stop_request",
        actor: "operator",
        reason: expect.stringMatching(/a stop was asked for by operator/),
      },
    });
    expect(status(kernel, "agents.stop", stopped)).toBe(200);
    const again = await ask(kernel, "agents.start", { agent_id: "a" });
    expect(again).toMatchObject({ state: "running" });
    expect(again.run_id).not.toBe(run_id);
    const restarted = await ask(kernel, "agents.restart", { agent_id: "a" });
    expect(restarted).toMatchObject({ state: "running", restarts: 0, last_exit: { cause: "restart" } });
    expect(restarted.run_id).not.toBe(again.run_id);
    await ask(kernel, "agents.signal", { agent_id: "a", signal: "SIGUSR1" });
    expect(kernel.spawner.run("a").signals).toEqual(["SIGUSR1"]);
  });

  test("wait: false answers 202 at once", async () => {
    const kernel = await started({ spawner: memorySpawner({ stubborn: ["a"] }) });
    await create(kernel, { agent_id: "a" });
    const stopping = await ask(kernel, "agents.stop", { agent_id: "a", wait: false });
    expect(status(kernel, "agents.stop", stopping)).toBe(202);
    expect(stopping.desired).toBe("stopped");
    const deleting = await ask(kernel, "agents.delete", { agent_id: "a", wait: false });
    expect(status(kernel, "agents.delete", deleting)).toBe(202);
    expect(kernel.agents.get("a")).toBeDefined();
    kernel.spawner.run("a").end({ kind: "exited", code: 0 });
    await waitFor(() => kernel.agents.get("a") === undefined, { what: "the end of the record" });
  });

  test("force takes no grace, and shortens a stop under way", async () => {
    const kernel = await started({ spawner: memorySpawner({ stubborn: ["a"] }) });
    await create(kernel, { agent_id: "a" });
    const patient = ask(kernel, "agents.stop", { agent_id: "a", grace: "1h" });
    await waitFor(() => kernel.agents.get("a")?.state === "stopping", { what: "the stop to begin" });
    const forced = await ask(kernel, "agents.stop", { agent_id: "a", force: true });
    expect(forced).toMatchObject({ state: "stopped", last_exit: { kind: "signaled", signal: "SIGKILL" } });
    expect(await patient).toMatchObject({ state: "stopped" });
  });

  test("a start that is vetoed is an error", async () => {
    let allowed = true;
    const kernel = await started({
      plugins: [
        gate(() => {
          if (!allowed) throw new SpawnVetoed("closed");
        }),
      ],
    });
    await create(kernel, { agent_id: "a" });
    allowed = false;
    for (const verb of ["agents.restart", "agents.start"]) {
      expect(await failure(ask(kernel, verb, { agent_id: "a" }))).toMatchObject({ code: "spawn_vetoed" });
    }
  });

  test("a signal needs a process, and a name from the list", async () => {
    const kernel = await started();
    await create(kernel, { agent_id: "a", start: false });
    expect(await failure(ask(kernel, "agents.signal", { agent_id: "a", signal: "SIGTERM" }))).toMatchObject({
      code: "agent_not_running",
      hint: expect.stringContaining("POST /agents/a/start"),
    });
    for (const signal of ["TERM", "SIGFOO", "9", 9, ""]) {
      expect(await failure(ask(kernel, "agents.signal", { agent_id: "a", signal }))).toMatchObject({
        code: "input_invalid",
      });
    }
  });

  test.each([
    "stop",
    "start",
    "restart",
    "delete",
    "signal",
    "heartbeat",
    "logs",
    "events",
    "why",
    "result",
    "get",
  ])("%s of nobody is 404", async (verb) => {
    const kernel = await started();
    const input = { agent_id: "nobody", ...(verb === "signal" ? { signal: "SIGTERM" } : {}) };
    expect(await failure(ask(kernel, `agents.${verb}`, input))).toMatchObject({
      code: "agent_not_found",
      hint: "GET /agents lists the agents that there are",
    });
  });

  test("delete answers the final record, and the second is 404", async () => {
    const kernel = await started();
    const { run_id } = await create(kernel, { agent_id: "a" });
    const last = await ask(kernel, "agents.delete", { agent_id: "a", grace: "5s" });
    expect(last).toMatchObject({ state: "stopped", last_exit: { run_id, cause: "stop_request" } });
    expect(last.pid).toBeUndefined();
    expect(status(kernel, "agents.delete", last)).toBe(200);
    expect(kernel.agents.get("a")).toBeUndefined();
    expect(await failure(ask(kernel, "agents.delete", { agent_id: "a" }))).toMatchObject({
      code: "agent_not_found",
    });
  });

  test("delete of what has no process, ten times over", async () => {
    const kernel = await started();
    for (let index = 0; index < 10; index++) {
      await create(kernel, { agent_id: "a", start: false });
      expect(await ask(kernel, "agents.delete", { agent_id: "a" })).toMatchObject({ state: "stopped" });
      expect(kernel.agents.get("a")).toBeUndefined();
    }
  });

  test("two deletes at once both get the final record", async () => {
    const kernel = await started({ spawner: memorySpawner({ stubborn: ["a"] }) });
    await create(kernel, { agent_id: "a" });
    const both = [1, 2].map(() => ask(kernel, "agents.delete", { agent_id: "a" }));
    await waitFor(() => kernel.agents.get("a")?.state === "stopping", { what: "the end to begin" });
    kernel.spawner.run("a").end({ kind: "exited", code: 0 });
    for (const answer of await Promise.all(both)) expect(answer).toMatchObject({ state: "stopped" });
  });

  test("what survives even the kill is told, with names, and the record stays", async () => {
    const spawner = memorySpawner({ stubborn: ["a"] });
    const undying: MemorySpawner = {
      ...spawner,
      async spawn(spec, commit) {
        const handle = await spawner.spawn(spec, commit);
        return { ...handle, stop: async () => ({ survivors: [{ pid: 4_242, name: "dd" }] }) };
      },
    };
    const kernel = await started({ spawner: undying });
    await create(kernel, { agent_id: "a" });
    const error = await failure(ask(kernel, "agents.delete", { agent_id: "a" }));
    expect(error).toMatchObject({
      code: "tree_survived",
      status: 500,
      data: { survivors: [{ pid: 4_242, name: "dd" }] },
    });
    expect(kernel.agents.get("a")?.state).toBe("stopping");
  });

  test("heartbeat: words, progress, and what was used so far", async () => {
    const kernel = await started();
    const agent = await create(kernel, { agent_id: "a" });
    const beat = (report: Record<string, unknown>, as: Principal = asAgent(agent)) =>
      ask<object>(kernel, "agents.heartbeat", { agent_id: "a", ...report }, { as });
    const usage = { input_tokens: 10, output_tokens: 5 };
    expect(await beat({ status: "reading", progress: 0.5, usage })).toEqual({
      agent_id: "a",
      run_id: agent.run_id,
      state: "running",
    });
    await beat({ usage: { output_tokens: 7, cost_usd: 0.25 } });
    expect(kernel.agents.get("a")).toMatchObject({
      status: "reading",
      progress: 0.5,
      usage: { input_tokens: 10, output_tokens: 7, cost_usd: 0.25 },
    });
    expect(await beat({}, OPERATOR)).toMatchObject({ run_id: agent.run_id });
    for (const bad of [{ progress: 1.5 }, { usage: { input_tokens: -1 } }, { usage: { tokens: 1 } }]) {
      expect(await failure(beat(bad))).toMatchObject({ code: "input_invalid" });
    }
    await ask(kernel, "agents.restart", { agent_id: "a" });
    expect(await failure(beat({}))).toMatchObject({ code: "run_is_over" });
    await ask(kernel, "agents.stop", { agent_id: "a" });
    expect(await failure(beat({}, OPERATOR))).toMatchObject({ code: "agent_not_running" });
  });
});

describe("a flood of heartbeats", () => {
  test("is shown at once and written once a second, with the latest words", async () => {
    const clock = createFakeClock();
    const kernel = await started({ clock });
    const agent = await create(kernel, { agent_id: "a" });
    const beat = (report: object) =>
      ask(kernel, "agents.heartbeat", { agent_id: "a", ...report }, { as: asAgent(agent) });
    const written = () =>
      kernel.state.events.filter(({ type }) => type === "agent.heartbeat").map(({ data }) => data);
    const flood = async () => {
      for (let count = 1; count <= 100; count++) await beat({ status: `step ${count}` });
    };
    await flood();
    expect(kernel.agents.get("a")?.status).toBe("step 100");
    expect(written()).toEqual([{ status: "step 1" }]);
    await beat({ progress: 0.5 });
    await clock.advance(1_000);
    await waitFor(() => written().length === 2, { what: "the latest words" });
    expect(written()[1]).toEqual({ status: "step 100", progress: 0.5 });
    await clock.advance(5_000);
    expect(written()).toHaveLength(2);
    expect(clock.pending()).toBeLessThan(10);
    // What was used is money: it waits for nothing.
    await beat({ status: "paying" });
    await beat({ status: "paid", usage: { cost_usd: 1 } });
    expect(written().slice(2)).toMatchObject([{ status: "paying" }, { status: "paid" }]);
  });
});

/** A spawner with output: lines of one run, cursors `run:index`. */
function loggingSpawner(lines: string[]): { spawner: MemorySpawner; queries: LogQuery[]; wake: () => void } {
  const queries: LogQuery[] = [];
  let wake = () => {};
  const logs: Spawner["logs"] = async function* (_, query): AsyncGenerator<LogLine> {
    queries.push(query);
    let index = query.cursor
      ? Number(query.cursor.split(":")[1]) + 1
      : Math.max(0, lines.length - (query.tail ?? 0));
    for (;;) {
      for (; index < lines.length; index++) {
        const bytes = Buffer.from(lines[index] ?? "", "latin1");
        yield { run_id: "run", stream: "stdout", bytes, cursor: `run:${index}` };
      }
      if (!query.follow || query.signal?.aborted) return;
      await new Promise<void>((resolve) => {
        wake = resolve;
        query.signal?.addEventListener("abort", () => resolve(), { once: true });
      });
    }
  };
  return { spawner: { ...memorySpawner(), logs } as MemorySpawner, queries, wake: () => wake() };
}

describe("logs", () => {
  type Page = { items: { text?: string; base64?: string; cursor: string }[]; next_cursor?: string };

  test("the last lines, and those after a cursor", async () => {
    const lines = Array.from({ length: 300 }, (_, index) => `line ${index}`);
    const { spawner } = loggingSpawner(lines);
    const kernel = await started({ spawner });
    await create(kernel, { agent_id: "a" });
    const page = (input: object) => ask<Page>(kernel, "agents.logs", { agent_id: "a", ...input });
    const newest = await page({});
    expect(newest.items).toHaveLength(100);
    expect(newest.items.at(-1)).toEqual({
      run_id: "run",
      stream: "stdout",
      text: "line 299",
      cursor: "run:299",
    });
    expect(newest.next_cursor).toBe("run:299");
    expect(await page({ cursor: "run:299" })).toEqual({ items: [], next_cursor: "run:299" });
    const next = await page({ cursor: "run:9", tail: 3 });
    expect(next.items.map(({ text }) => text)).toEqual(["line 10", "line 11", "line 12"]);
    expect(next.next_cursor).toBe("run:12");
    expect(await page({ tail: 0 })).toEqual({ items: [] });
    expect(await failure(page({ tail: 10_001 }))).toMatchObject({ code: "input_invalid" });
  });

  test("since and until: a time, or how long ago; the cursor goes before them", async () => {
    const { spawner, queries } = loggingSpawner(["one", "two", "three"]);
    const kernel = await started({ spawner });
    await create(kernel, { agent_id: "a" });
    const page = (input: object) => ask<Page>(kernel, "agents.logs", { agent_id: "a", ...input });
    await page({ since: "2026-01-31T12:00:00.5+01:00", until: "2026-01-31 11:00:01z" });
    const noon = Date.UTC(2026, 0, 31, 11);
    expect(queries.at(-1)).toEqual({ previous: false, since: noon + 500, until: noon + 1_000 });
    await page({ since: "1h", tail: 2 });
    expect(queries.at(-1)).toMatchObject({ tail: 2, since: expect.any(Number) });
    expect(Math.abs((queries.at(-1)?.since ?? 0) - (Date.now() - 3_600_000))).toBeLessThan(60_000);
    await page({ since: "1h", until: "1m", cursor: "run:0" });
    expect(queries.at(-1)).toEqual({ cursor: "run:0", until: expect.any(Number) });
    await page({ since: "1h", previous: true, cursor: "run:0" });
    expect(queries.at(-1)).toEqual({ cursor: "run:0", previous: true });
    for (const bad of ["yesterday", "2026-01-31", "2026-13-31T12:00:00Z", "-1h", "1", ""]) {
      expect(await failure(page({ since: bad })), bad).toMatchObject({
        code: "input_invalid",
        message: expect.stringContaining("since"),
      });
    }
    expect(await failure(page({ until: "1m", follow: true }))).toMatchObject({ code: "input_invalid" });
  });

  test("bytes that are no text", async () => {
    const { spawner } = loggingSpawner(["caf\xe9"]);
    const kernel = await started({ spawner });
    await create(kernel, { agent_id: "a" });
    const page = (encoding: string) => ask<Page>(kernel, "agents.logs", { agent_id: "a", encoding });
    expect((await page("utf8")).items[0]?.text).toBe("caf\ufffd");
    expect((await page("base64")).items[0]?.base64).toBe(Buffer.from("caf\xe9", "latin1").toString("base64"));
  });

  test("an answer has bounds: the newest lines stay, and after a cursor the oldest", async () => {
    const { spawner } = loggingSpawner(Array.from({ length: 10 }, (_, index) => `${index}`.repeat(2 ** 20)));
    const kernel = await started({ spawner });
    await create(kernel, { agent_id: "a" });
    const newest = await ask<Page>(kernel, "agents.logs", { agent_id: "a" });
    expect(newest.items.map(({ cursor }) => cursor)).toEqual(["run:6", "run:7", "run:8", "run:9"]);
    const after = await ask<Page>(kernel, "agents.logs", { agent_id: "a", cursor: "run:0" });
    expect(after.items.map(({ cursor }) => cursor)).toEqual(["run:1", "run:2", "run:3", "run:4"]);
    expect(after.next_cursor).toBe("run:4");
  });

  test("followed until the caller goes, resuming after the last line that it had", async () => {
    const lines = ["one", "two"];
    const { spawner, wake, queries } = loggingSpawner(lines);
    const kernel = await started({ spawner });
    await create(kernel, { agent_id: "a" });
    const call = new AbortController();
    const stream = await ask<AsyncIterable<StreamItem>>(
      kernel,
      "agents.logs",
      { agent_id: "a", follow: true },
      { signal: call.signal, lastEventId: "run:0" },
    );
    const read = collect(stream);
    await waitFor(() => read.items.length === 1, { what: "the second line" });
    lines.push("three");
    wake();
    await waitFor(() => read.items.length === 2, { what: "the third line" });
    expect(read.items).toMatchObject([
      { id: "run:1", event: "line", data: { text: "two" } },
      { id: "run:2", event: "line", data: { text: "three" } },
    ]);
    expect(queries.at(-1)).toMatchObject({ cursor: "run:0", follow: true });
    call.abort();
    await read.done;
  });

  test("following ends when the agent is deleted", async () => {
    const { spawner } = loggingSpawner(["one"]);
    const kernel = await started({ spawner });
    await create(kernel, { agent_id: "a" });
    const stream = await ask<AsyncIterable<StreamItem>>(kernel, "agents.logs", {
      agent_id: "a",
      follow: true,
    });
    const read = collect(stream);
    await waitFor(() => read.items.length === 1, { what: "the first line" });
    await ask(kernel, "agents.delete", { agent_id: "a" });
    await read.done;
  });

  test("a spawner without output says so", async () => {
    const kernel = await started();
    await create(kernel, { agent_id: "a" });
    expect(await failure(ask(kernel, "agents.logs", { agent_id: "a" }))).toMatchObject({
      code: "slot_empty",
      status: 501,
    });
  });
});

/** Reads a stream to its end, in the background. */
function collect(stream: AsyncIterable<StreamItem>): { items: StreamItem[]; done: Promise<void> } {
  const items: StreamItem[] = [];
  const done = (async () => {
    for await (const item of stream) if (item.data !== undefined) items.push(item);
  })();
  done.catch(() => {});
  return { items, done };
}

describe("events", () => {
  async function follow(kernel: TestKernel, options: CallOptions & { as?: Principal } = {}, input = {}) {
    const call = new AbortController();
    const stream = await ask<AsyncIterable<StreamItem>>(kernel, "events.stream", input, {
      signal: call.signal,
      ...options,
    });
    return { ...collect(stream), end: () => call.abort() };
  }
  const idsOf = (items: StreamItem[]) => items.map(({ id }) => Number(id));

  test("from now on, each once, in order", async () => {
    const kernel = await started();
    await create(kernel, { agent_id: "before" });
    const since = kernel.journal.lastEventId();
    const stream = await follow(kernel);
    await create(kernel, { agent_id: "a" });
    await ask(kernel, "agents.stop", { agent_id: "a" });
    const newest = kernel.journal.lastEventId();
    await waitFor(() => idsOf(stream.items).at(-1) === newest, { what: "the newest event" });
    expect(idsOf(stream.items)).toEqual(
      Array.from({ length: newest - since }, (_, index) => since + 1 + index),
    );
    expect(stream.items[0]).toMatchObject({
      event: "agent.created",
      data: { agent_id: "a", type: "agent.created" },
    });
    stream.end();
    await stream.done;
  });

  test("resumed: nothing is lost or doubled between the past and the present", async () => {
    const kernel = await started();
    for (let index = 0; index < 30; index++) await create(kernel, { agent_id: `old${index}` });
    const stream = await follow(kernel, { lastEventId: "5" });
    await Promise.all(Array.from({ length: 30 }, (_, index) => create(kernel, { agent_id: `new${index}` })));
    const newest = kernel.journal.lastEventId();
    await waitFor(() => idsOf(stream.items).at(-1) === newest, { what: "the newest event" });
    expect(idsOf(stream.items)).toEqual(Array.from({ length: newest - 5 }, (_, index) => 6 + index));
    stream.end();
    await stream.done;
  });

  test("a reader slower than what happens loses nothing", async () => {
    const kernel = await started();
    const agent = await create(kernel, { agent_id: "a" });
    const since = kernel.journal.lastEventId();
    const call = new AbortController();
    const stream = await ask<AsyncIterable<StreamItem>>(kernel, "events.stream", {}, { signal: call.signal });
    const iterator = stream[Symbol.asyncIterator]();
    expect((await iterator.next()).value).toEqual({ id: String(since) });
    const first = iterator.next();
    let beats = 0;
    const beat = () => kernel.reports.heartbeat("a", agent.run_id ?? "", { status: `beat ${++beats}` });
    // More than waits for anybody: the stream has to go back to the journal.
    for (let count = 0; count < 2_500; count++) await beat();
    const seen = [Number((await first).value.id)];
    while (seen.at(-1) !== kernel.journal.lastEventId()) seen.push(Number((await iterator.next()).value.id));
    expect(seen).toEqual(Array.from({ length: 2_500 }, (_, index) => since + 1 + index));
    call.abort();
  });

  test("filters", async () => {
    const kernel = await started();
    const byAgent = await follow(kernel, { lastEventId: "0" }, { agent_id: "b" });
    const byType = await follow(kernel, { lastEventId: "0" }, { type: "agent.created" });
    await create(kernel, { agent_id: "a" });
    await create(kernel, { agent_id: "b" });
    await waitFor(() => byType.items.length === 2, { what: "both creations" });
    await waitFor(() => byAgent.items.length >= 2, { what: "what happened to b" });
    const agentsOf = (items: StreamItem[]) =>
      new Set(items.map(({ data }) => (data as DaemonEvent).agent_id));
    expect(agentsOf(byAgent.items)).toEqual(new Set(["b"]));
    expect(agentsOf(byType.items)).toEqual(new Set(["a", "b"]));
    byAgent.end();
    byType.end();
  });

  test.each(["-1", "NaN", "1e3", "9".repeat(300), "999999", " 1", "0x1"])(
    "Last-Event-ID %s is refused",
    async (lastEventId) => {
      const kernel = await started();
      expect(await failure(ask(kernel, "events.stream", {}, { lastEventId }))).toMatchObject({
        code: "input_invalid",
        status: 400,
        hint: expect.stringContaining("leave the header out"),
      });
    },
  );

  test("an agent is told of itself and of what is below it, also of what is gone", async () => {
    const kernel = await started();
    const master = await create(kernel, { agent_id: "master" });
    const stranger = await create(kernel, { agent_id: "stranger" });
    const child = await create(kernel, { agent_id: "child" }, { as: asAgent(master) });
    await create(kernel, { agent_id: "grandchild" }, { as: asAgent(child) });
    await create(kernel, { agent_id: "theirs" }, { as: asAgent(stranger) });
    for (const agent_id of ["grandchild", "child", "theirs"])
      await ask(kernel, "agents.delete", { agent_id });
    // The name of the grandchild passes to somebody else.
    await create(kernel, { agent_id: "grandchild" }, { as: asAgent(stranger) });
    const stream = await follow(kernel, { as: asAgent(master), lastEventId: "0" });
    await ask(kernel, "agents.heartbeat", { agent_id: "stranger", status: "here" });
    await ask(kernel, "agents.heartbeat", { agent_id: "master", status: "here" });
    await waitFor(() => stream.items.some(({ event }) => event === "agent.heartbeat"), {
      what: "the heartbeat",
    });
    const told = stream.items.map(({ data }) => data as DaemonEvent);
    const count = (id: string, type: string) =>
      told.filter((event) => event.agent_id === id && event.type === type).length;
    expect(new Set(told.map(({ agent_id }) => agent_id))).toEqual(new Set(["master", "child", "grandchild"]));
    expect(count("grandchild", "agent.created")).toBe(1);
    expect(count("grandchild", "agent.deleted")).toBe(1);
    expect(count("child", "agent.deleted")).toBe(1);
    stream.end();
  });

  test("an agent reads nothing of a stranger by making one of its id", async () => {
    const kernel = await started();
    const asker = asAgent(await create(kernel, { agent_id: "asker" }));
    await create(kernel, { agent_id: "x" });
    await ask(kernel, "agents.delete", { agent_id: "x" });
    const formerly = kernel.journal.lastEventId();
    await create(kernel, { agent_id: "x" }, { as: asker });
    type Page = { items: DaemonEvent[] };
    const page = await ask<Page>(kernel, "agents.events", { agent_id: "x" }, { as: asker });
    expect(page.items[0]).toMatchObject({ type: "agent.created", data: { parent_id: "asker" } });
    expect(page.items.every(({ id }) => id > formerly)).toBe(true);
    const whole = await ask<Page>(kernel, "agents.events", { agent_id: "x" });
    expect(whole.items.some(({ id }) => id <= formerly)).toBe(true);
    const stream = await follow(kernel, { as: asker, lastEventId: "0" }, { agent_id: "x" });
    await waitFor(() => stream.items.length >= page.items.length, { what: "the events of x" });
    expect(idsOf(stream.items)).toEqual(page.items.map(({ id }) => id));
    stream.end();
  });

  test("an agent is told neither of a former one of its id nor of what was below that one", async () => {
    const kernel = await started();
    const former = asAgent(await create(kernel, { agent_id: "me" }));
    await create(kernel, { agent_id: "theirs" }, { as: former });
    await ask(kernel, "agents.delete", { agent_id: "me" });
    await ask(kernel, "agents.delete", { agent_id: "theirs" });
    const formerly = kernel.journal.lastEventId();
    const me = asAgent(await create(kernel, { agent_id: "me" }));
    const own = await create(kernel, { agent_id: "own" }, { as: me });
    const stream = await follow(kernel, { as: me, lastEventId: "0" });
    await ask(kernel, "agents.heartbeat", { agent_id: "own", status: "here" }, { as: asAgent(own) });
    await waitFor(() => stream.items.some(({ event }) => event === "agent.heartbeat"), {
      what: "the heartbeat",
    });
    expect(idsOf(stream.items).every((id) => id > formerly)).toBe(true);
    expect(new Set(stream.items.map(({ data }) => (data as DaemonEvent).agent_id))).toEqual(
      new Set(["me", "own"]),
    );
    stream.end();
  });

  test("of one agent, in pages", async () => {
    const kernel = await started();
    const agent = await create(kernel, { agent_id: "a" });
    await create(kernel, { agent_id: "b" });
    for (let count = 0; count < 5; count++) {
      await kernel.reports.heartbeat("a", agent.run_id ?? "", { progress: count / 5 });
    }
    type Page = { items: DaemonEvent[]; gap: boolean; next_cursor?: string };
    const all = await ask<Page>(kernel, "agents.events", { agent_id: "a" });
    expect(all.items.every(({ agent_id }) => agent_id === "a")).toBe(true);
    expect(all).toMatchObject({ gap: false });
    expect(all.next_cursor).toBeUndefined();
    const first = await ask<Page>(kernel, "agents.events", { agent_id: "a", limit: 3 });
    const rest = await ask<Page>(kernel, "agents.events", {
      agent_id: "a",
      after: Number(first.next_cursor),
    });
    expect([...first.items, ...rest.items]).toEqual(all.items);
  });
});

describe("why", () => {
  type Why = {
    summary: string;
    next: string;
    hint: string;
    last_runs: { status: string; cause: string; uptime?: string }[];
    output_tail?: string;
  };
  const why = (kernel: TestKernel, agent_id = "a") => ask<Why>(kernel, "agents.why", { agent_id });

  test("a crash is explained, with the time of the next start", async () => {
    const clock = createFakeClock();
    const kernel = await started({ clock });
    await create(kernel, { agent_id: "a" });
    await clock.advance(42_000);
    kernel.spawner.run("a").end({ status: { kind: "exited", code: 137 }, outputTail: "out of cheese" });
    await kernel.agents.wait("a", "settled");
    const told = await why(kernel);
    expect(told).toMatchObject({
      agent_id: "a",
      state: "backoff",
      desired: "running",
      output_tail: "out of cheese",
      last_runs: [{ cause: "self", uptime: "42s", actor: "agent:a" }],
    });
    expect(told.last_runs[0]?.status).toBe("exit 137: killed by SIGKILL, as reported by a shell");
    expect(told.next).toMatch(/^will be started again at 2026-01-01T00:00:43\.000Z \(in 1s\)$/);
    expect(told.summary).toMatch(/^a has ended and is backing off before its next start: /);
    expect(told.summary).toContain(", after 42s: by itself (");
    expect(told.hint).toContain("GET /agents/a/logs");
  });

  test("a running agent is explained, with its uptime and its last output", async () => {
    const clock = createFakeClock();
    const { spawner } = loggingSpawner(["hello", "world"]);
    const kernel = await started({ clock, spawner });
    await create(kernel, { agent_id: "a" });
    await ask(kernel, "agents.heartbeat", { agent_id: "a", status: "thinking" });
    await clock.advance(185_000);
    const told = await why(kernel);
    expect(told.summary).toBe('a has been running for 3m 5s (pid 100000). Last reported status: "thinking".');
    expect(told).toMatchObject({
      next: "keeps running; on exit, its restart policy applies (on-failure, at most 5 restarts within 1m)",
      output_tail: "hello\nworld",
    });
    expect(told.last_runs).toEqual([]);
  });

  test("a waiting, a stopped and a finished agent are explained", async () => {
    const kernel = await started({ templates: { Plain: {}, Needy: { requires: ["agent:zzz"] } } });
    await create(kernel, { agent_id: "waits", template_id: "Needy" });
    const waits = await why(kernel, "waits");
    expect(waits.summary).toBe("waits is waiting for agent:zzz, which does not exist.");
    expect(waits.next).toMatch(/^will start when agent zzz is running/);
    await create(kernel, { agent_id: "stopped" });
    await ask(kernel, "agents.stop", { agent_id: "stopped" });
    const stopped = await why(kernel, "stopped");
    expect(stopped.summary).toContain("stopped is stopped: a stop was asked for by operator");
    expect(stopped).toMatchObject({ next: "nothing until it is started" });
    await create(kernel, { agent_id: "done" });
    kernel.spawner.run("done").end({ status: { kind: "exited", code: 0 }, result: "42" });
    await kernel.agents.wait("done", "ended");
    const done = await why(kernel, "done");
    expect(done.summary).toContain("done has exited and will not be restarted");
    expect(done.hint).toContain("GET /agents/done/result");
  });

  test("an agent that has failed is explained", async () => {
    const templates = { Crash: { restart: { max_restarts: 1, backoff: { min: "0ms" } } } };
    const kernel = await started({ templates });
    await create(kernel, { agent_id: "a", template_id: "Crash" });
    for (let run = 0; run < 2; run++) {
      await kernel.agents.wait("a", "ready");
      kernel.spawner.run("a").end({ kind: "signaled", signal: "SIGSEGV" });
      await kernel.agents.wait("a", "settled");
    }
    const told = await why(kernel);
    expect(told.summary).toContain("a has failed and will not be restarted");
    expect(told.summary).toContain("2 of its last 2 runs failed.");
    expect(told.summary).toContain("It was restarted automatically once.");
    expect(told.last_runs.map(({ status }) => status)).toEqual([
      "crashed: invalid memory access (SIGSEGV)",
      "crashed: invalid memory access (SIGSEGV)",
    ]);
    expect(told.hint).toContain("POST /agents/a/start");
  });
});

/** A readiness probe that never says anything: the test says it. */
function silentProbe() {
  return definePlugin({
    name: "probe-never",
    apiVersion: 1,
    provides: [probeSlot],
    options: z.strictObject({}),
    setup(ctx) {
      ctx.provide(probeSlot, { name: "never", roles: ["readiness"], options: z.looseObject({}), watch() {} });
    },
  })();
}

test("every operation can be told as JSON Schema, and has a place of its own", async () => {
  const kernel = await started();
  const operations = [...(table.get(kernel)?.values() ?? [])];
  expect(operations.map(({ name }) => name)).toEqual([
    "agents.create",
    "agents.list",
    "agents.get",
    "agents.result",
    "agents.stop",
    "agents.start",
    "agents.restart",
    "agents.signal",
    "agents.delete",
    "agents.heartbeat",
    "agents.logs",
    "agents.events",
    "events.stream",
    "agents.why",
    "agents.samples",
  ]);
  const places = operations.map(({ http }) => `${http?.method} ${http?.path}`);
  expect(new Set(places).size).toBe(operations.length);
  for (const { input, output } of operations) {
    const options = { target: "draft-2020-12" } as const;
    expect(input["~standard"].jsonSchema?.input(options)).toMatchObject({ type: "object" });
    expect(JSON.stringify(output?.["~standard"].jsonSchema?.output(options))).toContain('"type":"object"');
  }
});
