import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { type IncomingMessage, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import {
  type ConfiguredPlugin,
  defineOperation,
  idSchema,
  type Operation,
  operation,
  type StreamItem,
} from "../../core/index.js";
import authenticatorTokens from "../../plugins/authenticator-tokens/index.js";
import authorizerTree from "../../plugins/authorizer-tree/index.js";
import { builtins } from "../../plugins/builtins.js";
import httpApi from "../../plugins/http-api/index.js";
import { type Answer, type Ask, ask } from "./http-request.js";
import { createPluginHost, type PluginHost, type PluginHostOptions } from "./plugin-host.js";

export type ApiOptions = Parameters<typeof httpApi>[0];

/** A running API: the plugins `authenticator-tokens`, `authorizer-tree` and `http-api`, with fixture operations and agents. */
export interface Api {
  host: PluginHost;
  home: string;
  port: number;
  /** Empty when there is none. */
  socket: string;
  /** The operator's. */
  token: string;
  /** At the port. */
  ask(what: Omit<Ask, "at">): Promise<Answer>;
}

const leftovers: (() => unknown)[] = [];

/** Undone by `tidy`, the last first. */
export function cleanUp(undo: () => unknown): void {
  leftovers.push(undo);
}

/** For `afterEach` or `afterAll`. */
export async function tidy(): Promise<void> {
  for (const undo of leftovers.splice(0).reverse()) await undo();
}

export function newHome(): string {
  const home = mkdtempSync(join(tmpdir(), "oh-"));
  cleanUp(() => rmSync(home, { recursive: true, force: true }));
  return home;
}

/** Not started. At a free port unless the options say otherwise. */
export function createApiHost(
  operations: readonly Operation<never>[],
  options: ApiOptions = {},
  more: Partial<PluginHostOptions> = {},
): PluginHost {
  const plugins = [authenticatorTokens(), authorizerTree(), httpApi({ port: 0, ...options })];
  return createPluginHost({ plugins, operations, ...more, home: more.home ?? newHome() });
}

export async function startApi(
  operations: readonly Operation<never>[],
  options: ApiOptions = {},
  more: Partial<PluginHostOptions> = {},
): Promise<Api> {
  const host = createApiHost(operations, options, more);
  await host.start();
  cleanUp(() => host.stop(true));
  const port = Number(new URL(urlOf(host, "api")).port);
  return {
    host,
    home: host.home,
    port,
    socket: urlOf(host, "api_socket"),
    token: readFileSync(join(host.home, "token"), "utf8").trim(),
    ask: (what) => ask({ at: port, ...what }),
  };
}

/** Where agents are told to reach an endpoint; empty when there is no such endpoint. */
export function urlOf(host: PluginHost, name: string): string {
  return host.endpoints.find((it) => it.name === name)?.urlFor({ agent_id: "a", run_id: "r" }) ?? "";
}

/** An operation that answers its input. */
export function echo(http: Operation["http"], shape: z.ZodRawShape = {}, more: Partial<Operation> = {}) {
  return defineOperation({
    name: `fixture.${http?.method.toLowerCase()}`,
    summary: "Answers its input.",
    scope: "any",
    input: z.strictObject(shape),
    http,
    handler: async (input) => ({ input }),
    ...more,
  } as Operation);
}

/** The operations whose handlers ran, of those made by `thing` and `daemonOperations`. */
export const reached: string[] = [];

/** `POST /things/{thing_id}`: takes an id, and answers its input. */
export const thing = defineOperation({
  name: "fixture.thing",
  summary: "Answers its input.",
  scope: "any",
  input: z.strictObject({
    thing_id: idSchema,
    n: z.number().optional(),
    text: z.string().optional(),
    any: z.unknown().optional(),
  }),
  http: { method: "POST", path: "/things/{thing_id}" },
  handler: async (input) => {
    reached.push("fixture.thing");
    return { input };
  },
});

/** Every operation of the built-in plugins, but answering at once, whatever it is given. */
export async function daemonOperations(): Promise<Operation<never>[]> {
  const plugins: ConfiguredPlugin[] = [];
  for (const { load } of builtins.values()) {
    const factory = (await load()).default;
    const provides = factory.definition.provides ?? [];
    if (factory.definition.name !== "http-api" && provides.some(({ id }) => id === operation.id)) {
      plugins.push(factory());
    }
  }
  const host = createPluginHost({ home: newHome(), plugins });
  return [...host.use(operation).values()].map((it) => ({
    ...it,
    input: z.looseObject({}),
    handler: async () => {
      reached.push(it.name);
      return { done: it.name };
    },
  })) as unknown as Operation<never>[];
}

/** `GET /events`: a stream that a test feeds by hand. */
export function handFedStream() {
  const items: (StreamItem | Error | "end")[] = [];
  const sleepers = new Set<() => void>();
  const wake = () => {
    for (const it of sleepers) it();
    sleepers.clear();
  };
  const state = { open: 0, taken: 0 };
  const stream = async function* (signal: AbortSignal): AsyncGenerator<StreamItem> {
    state.open++;
    try {
      signal.addEventListener("abort", wake);
      while (!signal.aborted) {
        const item = items.shift();
        if (item === "end") return;
        if (item instanceof Error) throw item;
        if (item === undefined) {
          await new Promise<void>((resolve) => sleepers.add(resolve));
        } else {
          state.taken++;
          yield item;
        }
      }
    } finally {
      state.open--;
    }
  };
  const feed = (...more: typeof items) => {
    items.push(...more);
    wake();
  };
  const operation = echo(
    { method: "GET", path: "/events" },
    {},
    { name: "x.events", handler: async (_, { signal }) => stream(signal) },
  );
  return { operation, feed, state };
}

export interface OpenStream {
  response: IncomingMessage;
  text(): string;
  ended(): boolean;
}

/** Opens a stream and collects what comes. */
export async function follow(port: number, token: string, path = "/events"): Promise<OpenStream> {
  const headers = { authorization: `Bearer ${token}` };
  const sent = request({ host: "127.0.0.1", port, path, agent: false, headers }).end();
  cleanUp(() => sent.destroy());
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  let text = "";
  let ended = false;
  response.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk;
  });
  response.on("error", () => {});
  response.on("close", () => {
    ended = true;
  });
  return { response, text: () => text, ended: () => ended };
}
