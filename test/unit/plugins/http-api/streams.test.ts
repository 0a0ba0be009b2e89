import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { type IncomingMessage, request } from "node:http";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { authenticator, defineOperation } from "../../../../core/index.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";
import { cleanUp, follow, handFedStream, startApi, tidy } from "../../../helpers/http-api.js";
import { ask } from "../../../helpers/http-request.js";
import { waitFor } from "../../../helpers/wait-for.js";

afterEach(tidy);

describe("streams", () => {
  it("are server-sent events, sent as they come, and end with their source", async () => {
    const { operation, feed, state } = handFedStream();
    const { port, token } = await startApi([operation]);
    const stream = await follow(port, token);
    expect(stream.response.headers["content-type"]).toBe("text/event-stream");
    feed({ id: "1", event: "agent.state", data: { a: 1 } });
    await waitFor(() => stream.text().includes("data"), { what: "the first event" });
    expect(stream.text()).toBe(': open\n\nid: 1\nevent: agent.state\ndata: {"a":1}\n\n');
    feed({ data: "plain" }, "end");
    await waitFor(stream.ended, { what: "the end" });
    expect(stream.text()).toMatch(/data: plain\n\n$/);
    await waitFor(() => state.open === 0, { what: "the source to be closed" });
  });

  it("C30: text with line ends stays one event, whatever it looks like", async () => {
    const { operation, feed } = handFedStream();
    const { port, token } = await startApi([operation]);
    const stream = await follow(port, token);
    feed({ id: "1\n2", event: "a\r\nb", data: "one\n\nevent: forged\r\ndata: x\rend" }, "end");
    await waitFor(stream.ended, { what: "the end" });
    expect(stream.text()).toBe(
      ": open\n\nid: 1 2\nevent: a  b\ndata: one\ndata: \ndata: event: forged\ndata: data: x\ndata: end\n\n",
    );
  });

  it("a source that fails ends with an error event that says no secrets", async () => {
    const { operation, feed } = handFedStream();
    const { port, token } = await startApi([operation]);
    const stream = await follow(port, token);
    feed(new Error("a secret"));
    await waitFor(stream.ended, { what: "the end" });
    expect(stream.text()).toMatch(/event: error\ndata: \{.*"code":"internal"/);
    expect(stream.text()).not.toContain("secret");
  });

  it("a comment every 15 s keeps a quiet one alive", async () => {
    const clock = createFakeClock();
    const { operation } = handFedStream();
    const { port, token } = await startApi([operation], {}, { clock });
    const stream = await follow(port, token);
    await clock.advance(15_000);
    await waitFor(() => stream.text() === ": open\n\n: still here\n\n", {
      what: "one comment",
      diagnose: stream.text,
    });
    await clock.advance(15_000);
    await waitFor(() => stream.text().split("still here").length === 3, { what: "another" });
    expect(stream.ended()).toBe(false);
  });

  it("the source is closed when the client goes away, and for HEAD", async () => {
    const { operation, state } = handFedStream();
    const { port, token } = await startApi([operation]);
    const stream = await follow(port, token);
    await waitFor(() => state.open === 1, { what: "the source" });
    stream.response.destroy();
    await waitFor(() => state.open === 0, { what: "the source to be closed" });
    expect(await ask({ at: port, method: "HEAD", path: "/events", token })).toMatchObject({
      status: 200,
      text: "",
    });
    expect(state.open).toBe(0);
  });

  it("C29: a client that does not read gets a bounded buffer, and is dropped; others go on", async () => {
    const clock = createFakeClock();
    const { operation, feed, state } = handFedStream();
    const other = handFedStream();
    const quick = { ...other.operation, name: "x.quick", http: { method: "GET" as const, path: "/quick" } };
    const { port, token } = await startApi([operation, quick], {}, { clock });
    const stuck = request({
      port,
      path: "/events",
      agent: false,
      headers: { authorization: `Bearer ${token}` },
    }).end();
    cleanUp(() => stuck.destroy());
    const [response] = (await once(stuck, "response")) as [IncomingMessage];
    response.pause();
    const chunk = "x".repeat(64 * 1_024);
    feed(...Array.from({ length: 2_000 }, () => ({ data: chunk })));
    let last = -1;
    await waitFor(
      () => {
        const still = state.taken === last && state.taken > 0;
        last = state.taken;
        return still;
      },
      { what: "the source to be left alone" },
    );
    // 128 MB were on offer; what the kernel's socket buffers and 64 kB of ours take is far less.
    expect(state.taken).toBeLessThan(400);
    const good = await follow(port, token, "/quick");
    other.feed({ data: "hello" });
    await waitFor(() => good.text().includes("hello"), { what: "the other stream" });
    await clock.advance(31_000);
    await waitFor(() => state.open === 0, { what: "the stuck stream to be dropped" });
    expect(good.ended()).toBe(false);
  });

  it("C29: one token may have so many and no more", async () => {
    const { operation, state } = handFedStream();
    const { port, token } = await startApi([operation], { max_streams: 3 });
    const open = await Promise.all([1, 2, 3].map(() => follow(port, token)));
    const refused = await ask({ at: port, path: "/events", token });
    expect(refused).toMatchObject({ status: 429, json: { code: "too_many_streams" } });
    await waitFor(() => state.open === 3, { what: "three sources", diagnose: () => state });
    open[0]?.response.destroy();
    await waitFor(() => state.open === 2, { what: "one to close" });
    await follow(port, token);
  });

  it("C29: an agent's long polls are bounded too, and the operator still gets in", async () => {
    let waiting = 0;
    const poll = defineOperation({
      name: "test.poll",
      summary: "Answers when nobody waits any more.",
      scope: "any",
      input: z.strictObject({}),
      http: { method: "GET", path: "/poll" },
      handler: (_, { signal }) => {
        waiting += 1;
        return new Promise<object>((resolve) => signal.addEventListener("abort", () => resolve({})));
      },
    });
    const { host, port, token } = await startApi(
      [poll],
      { max_streams: 3 },
      { agents: [{ id: "worker_1" }] },
    );
    const run = host.use(authenticator).mint({ agentId: "worker_1", runId: "run-of-worker_1" });
    const leave = [1, 2, 3].map(() => {
      const asked = request({ port, path: "/poll", headers: { authorization: `Bearer ${run}` } });
      asked.on("error", () => {}).end();
      return () => asked.destroy();
    });
    await waitFor(() => waiting === 3, { what: "three polls" });
    const refused = await ask({ at: port, path: "/poll", token: run });
    expect(refused).toMatchObject({ status: 429, json: { code: "too_many_streams" } });
    expect((await ask({ at: port, path: "/openapi.json", token })).status).toBe(200);
    for (const go of leave) go();
    const again = request({ port, path: "/poll", headers: { authorization: `Bearer ${run}` } });
    again.on("error", () => {}).end();
    await waitFor(() => waiting === 4, { what: "a place to be free again" });
    again.destroy();
  });

  it("B18: ends when its token is no longer valid", async () => {
    const { operation, state } = handFedStream();
    const agents = [{ id: "worker_1" }];
    const { port, token, host, home } = await startApi([operation], {}, { agents });
    const ofOperator = await follow(port, token);
    const ofRun = await follow(
      port,
      host.use(authenticator).mint({ agentId: "worker_1", runId: "run-of-worker_1" }),
    );
    host.agents.delete("worker_1");
    await waitFor(ofRun.ended, { what: "the run's stream to end" });
    expect(ofOperator.ended()).toBe(false);
    writeFileSync(join(home, "token"), `${"n".repeat(43)}\n`);
    await waitFor(ofOperator.ended, { what: "the operator's stream to end" });
    await waitFor(() => state.open === 0, { what: "the sources to be closed" });
  });
});
