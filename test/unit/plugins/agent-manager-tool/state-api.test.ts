import { afterEach, beforeEach, expect, it } from "vitest";
import { type Client, createClient } from "../../../../plugins/agent-manager-tool/client/client.js";
import type { StateChange } from "../../../../plugins/agent-manager-tool/client/wire.js";
import authenticatorTokens from "../../../../plugins/authenticator-tokens/index.js";
import authorizerTree from "../../../../plugins/authorizer-tree/index.js";
import httpApi from "../../../../plugins/http-api/index.js";
import operationState from "../../../../plugins/operation-state/index.js";
import stateMemory from "../../../../plugins/state-memory/index.js";
import { cleanUp, startApi, tidy } from "../../../helpers/http-api.js";

let state: Client["state"];
beforeEach(async () => {
  const plugins = [
    stateMemory(),
    operationState(),
    authenticatorTokens(),
    authorizerTree(),
    httpApi({ port: 0 }),
  ];
  const api = await startApi([], {}, { plugins });
  const client = createClient({ url: `http://127.0.0.1:${api.port}`, token: api.token });
  cleanUp(() => client.close());
  state = client.state;
});
afterEach(tidy);

it("values are put, read and deleted, under keys of every kind", async () => {
  for (const key of ["plain", "a/b/c", "é ?#%2F", "..", "a//b"]) {
    const made = await state.put("shared", key, { of: key });
    expect(await state.get("shared", key)).toEqual({ ...made, key, value: { of: key } });
    expect(await state.delete("shared", key)).toBe(true);
    expect(await state.delete("shared", key)).toBe(false);
    expect(await state.get("shared", key)).toBeUndefined();
  }
});

it("a value is changed at a version only, and for a while only, when that is asked for", async () => {
  const { version, expires_at } = await state.put("shared", "k", 1, { ifVersion: "absent", ttlMs: 60_000 });
  expect(Date.parse(expires_at ?? "")).toBeGreaterThan(Date.now());
  const conflict = { code: "state_conflict", data: { key: "k", version } };
  await expect(state.put("shared", "k", 2, { ifVersion: "absent" })).rejects.toMatchObject(conflict);
  await expect(state.delete("shared", "k", { ifVersion: version + 1 })).rejects.toMatchObject(conflict);
  expect(await state.delete("shared", "k", { ifVersion: version })).toBe(true);
});

it("several are written together or not at all", async () => {
  const put = { op: "put", key: "a", value: 1, if_version: "absent" } as const;
  expect(await state.write("shared", [put, { op: "delete", key: "b" }])).toEqual([
    { key: "a", version: 1 },
    { key: "b" },
  ]);
  const again = state.write("shared", [{ op: "put", key: "c", value: 1 }, put]);
  await expect(again).rejects.toMatchObject({ code: "state_conflict" });
  expect(await state.get("shared", "c")).toBeUndefined();
});

it("a listing goes on over all pages", async () => {
  const keys = Array.from({ length: 450 }, (_, index) => `k/${String(index).padStart(3, "0")}`);
  for (let at = 0; at < keys.length; at += 100) {
    await state.write(
      "shared",
      keys.slice(at, at + 100).map((key) => ({ op: "put", key, value: key })),
    );
  }
  await state.put("shared", "other", 1);
  const seen: unknown[] = [];
  for await (const { value } of state.list("shared", { prefix: "k/" })) seen.push(value);
  expect(seen).toEqual(keys);
  for await (const entry of state.list("shared", { keysOnly: true }))
    expect(entry).not.toHaveProperty("value");
});

it("a watch tells what was, then what comes, until it is ended", async () => {
  await state.put("shared", "a", 1);
  const ended = new AbortController();
  const seen: StateChange[] = [];
  for await (const change of state.watch("shared", { after: 0, signal: ended.signal })) {
    seen.push(change);
    if (seen.length === 1) await state.delete("shared", "a");
    if (seen.length === 2) ended.abort();
  }
  expect(seen).toEqual([
    { type: "put", entry: expect.objectContaining({ key: "a", value: 1, version: 1 }) },
    { type: "delete", key: "a", version: 2 },
  ]);
});
