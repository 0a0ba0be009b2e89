import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { Agent, PluginContext, ServiceSpec } from "../../../../core/index.js";
import { createManagedServer, findProgram } from "../../../../plugins/kit/managed-server.js";

const folder = mkdtempSync(join(tmpdir(), "openstarry-managed-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The daemon's services, of which one may be there; what is asked for is there from then on. */
function services(found?: Pick<Agent, "state" | "reason">) {
  const asked: ServiceSpec[] = [];
  const errors: object[] = [];
  let agent = found as Agent | undefined;
  let refusal: Error | undefined;
  const log = { error: (fields: object) => void errors.push(fields) };
  const ctx = {
    log,
    services: {
      get: () => agent,
      async ensure(_name: string, spec: ServiceSpec) {
        if (refusal) throw refusal;
        asked.push(spec);
        agent = { state: "running" } as Agent;
        return agent;
      },
    },
  } as unknown as PluginContext;
  const refuse = (error?: Error) => {
    refusal = error;
  };
  const becomes = (state: Agent["state"]) => {
    agent = { state } as Agent;
  };
  return { ctx, asked, errors, refuse, becomes };
}

const template = () => ({ command: "/usr/bin/server" });
const turn = () => new Promise(setImmediate);

describe("a managed server", () => {
  it("is left until it is needed, and says so", async () => {
    const { ctx, asked } = services();
    const server = createManagedServer(ctx, { name: "s", eager: false, template });
    await server.start();
    expect([asked.length, server.health()]).toEqual([0, "svc:s is started when it is needed"]);
    server.wanted();
    await turn();
    expect([asked.length, server.health()]).toEqual([1, undefined]);
    server.wanted();
    await turn();
    expect(asked).toEqual([{ template: template() }]);
  });

  it("is asked for at the start when it is eager, and when an earlier daemon ran it", async () => {
    const eager = services();
    await createManagedServer(eager.ctx, { name: "s", eager: true, template }).start();
    const adopted = services({ state: "running" });
    await createManagedServer(adopted.ctx, { name: "s", eager: false, template }).start();
    expect([eager.asked.length, adopted.asked.length]).toEqual([1, 1]);
  });

  it("tells at the start what it lacks, also when it is left until it is needed", async () => {
    const lacking = () => {
      throw new Error("not installed");
    };
    const server = createManagedServer(services().ctx, { name: "s", eager: false, template: lacking });
    await expect(server.start()).rejects.toThrow("not installed");
  });

  it("says why it does not run, and is brought up after it was given up", async () => {
    const { ctx, asked } = services({ state: "failed", reason: "it crashed" });
    const server = createManagedServer(ctx, { name: "s", eager: false, template });
    expect(server.health()).toBe("svc:s is failed: it crashed");
    server.wanted();
    await turn();
    expect([asked.length, server.health()]).toEqual([1, undefined]);
  });

  it("keeps what went wrong with bringing it up for those who ask, until it works", async () => {
    const { ctx, errors, refuse } = services();
    const server = createManagedServer(ctx, { name: "s", eager: false, template });
    refuse(new Error("the disk is full"));
    server.wanted();
    await turn();
    expect([server.health(), errors.length]).toEqual(["the disk is full", 1]);
    refuse();
    server.wanted();
    await turn();
    expect(server.health()).toBeUndefined();
  });
});

describe("a managed server that waits for its next start", () => {
  it("is brought up once, however many want it at a time", async () => {
    const { ctx, becomes } = services({ state: "backoff" });
    let prepared = 0;
    const slowly = async () => {
      prepared++;
      await turn();
      return template();
    };
    const server = createManagedServer(ctx, { name: "s", eager: false, template: slowly });
    for (let asked = 0; asked < 100; asked++) server.wanted();
    await turn();
    await turn();
    expect(prepared).toBe(1);
    becomes("failed");
    server.wanted();
    expect(prepared).toBe(2);
  });

  it("and came back by itself is not said to be away for what went wrong before", async () => {
    const { ctx, refuse, becomes } = services({ state: "backoff" });
    const server = createManagedServer(ctx, { name: "s", eager: false, template });
    refuse(new Error("the disk is full"));
    server.wanted();
    await turn();
    expect(server.health()).toBe("the disk is full");
    becomes("running");
    expect(server.health()).toBeUndefined();
  });
});

describe("the program of a server", () => {
  const program = { name: "my-server", install: "apt install my-server", plugin: "state-mine" };
  const file = join(folder, "my-server");

  it("is looked for in further folders, and has to be executable", () => {
    writeFileSync(file, "#!/bin/sh\n");
    expect(() => findProgram({ ...program, folders: [folder] })).toThrow("not installed");
    chmodSync(file, 0o755);
    expect(findProgram({ ...program, folders: [folder] })).toBe(file);
    expect(findProgram({ ...program, path: file })).toBe(file);
  });

  it("that is missing is told with how to get it", () => {
    const find = (path?: string) => () => findProgram({ ...program, path });
    expect(find()).toThrow("state-mine is to run my-server, which is not installed");
    expect(find("/nowhere")).toThrow("/nowhere is no program");
    expect(find()).toThrow(
      expect.objectContaining({
        code: "config_invalid",
        hint: expect.stringContaining("apt install my-server"),
      }),
    );
    expect(find(folder)).toThrow("is no program");
  });
});
