import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type TemplateSource, templateSource, validateSync } from "../../../../core/index.js";
import templatesHttp from "../../../../plugins/template-source-http/index.js";
import { createFakeClock } from "../../../helpers/fake-clock.js";
import { createPluginHost, type PluginHost } from "../../../helpers/plugin-host.js";
import { templateLanguage } from "../../../helpers/template-language.js";
import { startTemplateService, type TemplateService } from "../../../helpers/template-service.js";
import { waitFor } from "../../../helpers/wait-for.js";

const A = { template_id: "A", command: "/bin/a" };
const B = { template_id: "B", command: "b", description: "another" };

let home: string;
let service: TemplateService;
const hosts: PluginHost[] = [];

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), "templates-http-"));
  service = await startTemplateService({ A, B });
});
afterEach(async () => {
  for (const host of hosts.splice(0)) await host.stop();
  await service.stop();
  rmSync(home, { recursive: true, force: true });
});

type Options = Parameters<typeof templatesHttp>[0] & object;
type Setup = { host: PluginHost; source: TemplateSource; clock: ReturnType<typeof createFakeClock> };

/** Started, and past its first round: everything that is there is in the cache. */
async function setUp(more: Partial<Options> = {}): Promise<Setup> {
  const clock = createFakeClock();
  const plugins = [templatesHttp({ url: service.url, max_age: "0s", ...more })];
  const host = createPluginHost({ plugins, home, clock });
  hosts.push(host);
  await host.start();
  const [source] = host.use(templateSource);
  if (!source) throw new Error("no source");
  // Behind the round that the start has begun, and one more.
  await source.reload?.();
  service.asked.length = 0;
  return { host, source, clock };
}

const folder = () => join(home, "templates-http");
const failure = async (work: Promise<unknown>): Promise<Error> =>
  work.then(
    () => new Error("it did not fail"),
    (error: Error) => error,
  );
const ids = async (source: TemplateSource) =>
  (await source.list()).documents.map(({ template_id }) => template_id).sort();

describe("a service that answers", () => {
  it("gives documents and the list, and unknown ids are not there", async () => {
    const { source, host } = await setUp();
    expect(await source.get("A")).toEqual({
      template_id: "A",
      revision: expect.stringMatching(/^[0-9a-f]{12}$/),
      document: A,
      origin: `${service.url}/templates/A`,
    });
    expect(await source.get("C")).toBeUndefined();
    expect(await source.get("../secrets")).toBeUndefined();
    expect(await ids(source)).toEqual(["A", "B"]);
    expect((await source.list()).invalid).toEqual([]);
    expect(host.problems).toEqual([]);
    expect([source.put, source.delete]).toEqual([undefined, undefined]);
  });

  it("is asked for what is new only, and a change counts", async () => {
    const { source } = await setUp();
    const first = await source.get("A");
    expect(service.asked.at(-1)?.headers["if-none-match"]).toMatch(/^"/);
    service.documents.set("A", { ...A, command: "/bin/other" });
    const second = await source.get("A");
    expect(second?.document).toMatchObject({ command: "/bin/other" });
    expect(second?.revision).not.toBe(first?.revision);
  });

  it("counts for max_age, and is asked again then", async () => {
    const { source, clock } = await setUp({ max_age: "5s" });
    const before = service.asked.length;
    await source.get("A");
    await source.list();
    expect(service.asked.length).toBe(before);
    await clock.advance(5_000);
    await source.get("A");
    expect(service.asked.length).toBe(before + 1);
  });

  it("is asked in the background, page by page", async () => {
    service.documents.set("C", { template_id: "C", command: "c" });
    service.answer = ({ url }, response) => {
      const page = { "/design/templates": ["A", "x y"], "/design/templates?cursor=x%20y": ["C"] }[url ?? ""];
      const document = service.documents.get(url?.split("/").at(-1) ?? "");
      const [id, next_cursor] = page ?? [];
      response.end(JSON.stringify(page ? { items: [{ template_id: id, more: 1 }], next_cursor } : document));
    };
    const { clock } = await setUp({ refresh: "60s" });
    expect(readdirSync(folder()).sort()).toEqual(["A.json", "C.json"]);
    service.answer = undefined;
    await clock.advance(60_000);
    await waitFor(() => existsSync(join(folder(), "B.json")), { what: "the second round" });
  });

  it("without a list lists what was asked for", async () => {
    service.hasList = false;
    const { source, host } = await setUp();
    expect(await ids(source)).toEqual([]);
    await source.get("B");
    expect(await ids(source)).toEqual(["B"]);
    expect(host.problems).toEqual([]);
  });

  it("that asks for a page without end, or lists without end, is cut short", async () => {
    const item = (index: number) => ({ template_id: `T${index}` });
    let pages = 0;
    service.answer = ({ url }, response) => {
      if (!url?.startsWith("/design/templates?") && url !== "/design/templates")
        return response.writeHead(404).end();
      pages += 1;
      const items = Array.from({ length: 600 }, (_, index) => item(pages * 600 + index));
      return response.end(JSON.stringify({ items, next_cursor: "again" }));
    };
    await setUp();
    // Of two rounds.
    expect(pages).toBe(4);
  });

  it("takes what is gone out of the cache", async () => {
    const { source } = await setUp();
    service.documents.delete("A");
    expect(await source.get("A")).toBeUndefined();
    expect(readdirSync(folder())).toEqual(["B.json"]);
    await service.stop();
    expect((await failure(source.get("A"))).message).toContain("did not answer (ECONNREFUSED)");
  });
});

describe("the cache", () => {
  it("is the daemon's alone", async () => {
    await setUp();
    expect(statSync(folder()).mode & 0o777).toBe(0o700);
    expect(statSync(join(folder(), "A.json")).mode & 0o777).toBe(0o600);
  });

  it("stands in for a service that is away, also in the next daemon, and says so until it is back", async () => {
    await (await setUp()).host.stop();
    await service.stop();
    const { source, host, clock } = await setUp({ refresh: "60s" });
    const found = await source.get("A");
    expect(found).toMatchObject({ document: A, template_id: "A" });
    expect(found?.origin).toBe(
      `${service.url}/templates/A (from the cache, as it was sent at 2026-01-01T00:00:00.000Z)`,
    );
    expect(await ids(source)).toEqual(["A", "B"]);
    expect(host.problems.at(-1)).toBe(
      `template service ${service.url} did not answer (ECONNREFUSED) (since 2026-01-01T00:00:00.000Z); from the cache: A, B`,
    );
    // Told once, and not at every question.
    expect(host.problems).toHaveLength(1);
    expect((await source.list()).invalid).toEqual([
      {
        origin: `${service.url}/templates`,
        error: expect.stringContaining("did not answer (ECONNREFUSED)"),
      },
    ]);
    await service.start();
    await clock.advance(60_000);
    await waitFor(() => host.problems.length === 0, { what: "it to recover" });
    expect((await source.get("A"))?.origin).toBe(`${service.url}/templates/A`);
  });

  it("of a service that is back is compared at once, when the first question is answered", async () => {
    await (await setUp()).host.stop();
    await service.stop();
    const { source, host } = await setUp();
    expect(host.problems).toHaveLength(1);
    await service.start();
    await source.get("A");
    await waitFor(() => host.problems.length === 0, { what: "it to recover" });
  });

  it("is not taken for another service's", async () => {
    await (await setUp()).host.stop();
    const url = service.url.replace("/design", "/other");
    const { source } = await setUp({ url });
    await service.stop();
    expect((await failure(source.get("A"))).message).toContain(`template service ${url}`);
  });

  it("passes over files that are not valid, and takes the service's then", async () => {
    await (await setUp()).host.stop();
    const file = join(folder(), "A.json");
    const whole = JSON.parse(readFileSync(file, "utf8"));
    const damaged = [
      "",
      "{",
      JSON.stringify({ ...whole, text: "{" }),
      JSON.stringify({ ...whole, template_id: "B" }),
    ];
    for (const text of damaged) {
      writeFileSync(file, text);
      const { source, host } = await setUp();
      expect((await source.get("A"))?.document).toEqual(A);
      await host.stop();
      writeFileSync(file, text);
      await service.stop();
      const alone = await setUp();
      expect((await failure(alone.source.get("A"))).message).toContain("did not answer");
      expect(await ids(alone.source)).toEqual(["B"]);
      await alone.host.stop();
      await service.start();
    }
  });

  it("is not written through a link", async () => {
    const elsewhere = join(home, "elsewhere");
    mkdirSync(elsewhere);
    symlinkSync(elsewhere, folder());
    expect((await failure(setUp())).message).toContain("is a link");
    expect(readdirSync(elsewhere)).toEqual([]);
  });

  it("that cannot be written does not keep templates from being used", async () => {
    const { source, host } = await setUp();
    mkdirSync(join(folder(), "C.json"));
    service.documents.set("C", { template_id: "C", command: "c" });
    expect((await source.get("C"))?.document).toMatchObject({ command: "c" });
    expect(host.log.map(({ message }) => message)).toContain("a template could not be cached");
  });
});

/** How a service fails that is there, and the words for it. */
const SILENCES: [string, (url: string) => TemplateService["answer"], string][] = [
  ["500", () => (_, response) => response.writeHead(500).end("secret"), "answered 500"],
  ["401", () => (_, response) => response.writeHead(401).end(), "answered 401"],
  ["304 to a plain question", () => (_, response) => response.writeHead(304).end(), "answered 304"],
  [
    "no HTTP",
    () =>
      ({ socket }) =>
        socket.end("hello\r\n\r\n"),
    "did not answer (HPE_INVALID_CONSTANT)",
  ],
  [
    "a broken answer",
    () =>
      ({ socket }, it) => {
        it.writeHead(200, { "content-length": 99 }).write("{");
        socket.end();
      },
    "did not answer (ECONNRESET)",
  ],
  [
    "another server",
    () => (_, response) => response.writeHead(302, { location: "http://127.0.0.2:1/x" }).end(),
    "redirects to another server",
  ],
  [
    "a ring",
    () =>
      ({ url }, response) =>
        response.writeHead(302, { location: url }).end(),
    "redirects more than 3",
  ],
];

/** What it may send instead of a document, and the words for it. */
const BAD_DOCUMENTS: [string, string | Buffer, string][] = [
  ["no JSON", "<html>", "line 1"],
  ["nothing", "", "expected an object"],
  ["a list", "[]", "expected object"],
  ["another template's", JSON.stringify(B), 'template_id is "B", expected "A"'],
  ["one that is not valid", JSON.stringify({ ...A, comand: 1 }), "comand"],
  ["a relative command", JSON.stringify({ ...A, command: "./a" }), '"./a" is relative'],
  ["a relative folder", JSON.stringify({ ...A, cwd: "work" }), '"work" is relative'],
  ["a relative file", JSON.stringify({ ...A, env_file: [".env"] }), '".env" is relative'],
  ["a key twice", '{"template_id":"A","command":"/a","command":"/b"}', 'duplicate key "command"'],
  ["what is too large", JSON.stringify({ ...A, description: "x".repeat(300_000) }), "more than 262144 bytes"],
  ["no UTF-8", Buffer.from([0xff, 0xfe]), "not UTF-8"],
];

describe("a service that is there and of no use", () => {
  it.each(SILENCES)(
    "%s: the cached one is used, and without it the error names the service",
    async (_, answer, words) => {
      const { source, host } = await setUp();
      // What a plain question is: the cached one is compared by its tag.
      const isPlain = words.includes("304");
      service.answer = answer(service.url);
      const error = await failure(source.get("C"));
      expect(error.message).toContain(`template service ${service.url} ${words}`);
      expect(error.message).not.toContain("secret");
      if (isPlain) return;
      expect(await source.get("A")).toMatchObject({
        document: A,
        origin: expect.stringContaining("from the cache"),
      });
      expect(host.problems.at(-1)).toContain(words);
      service.answer = undefined;
      await source.reload?.();
      expect(host.problems).toEqual([]);
    },
  );

  it.each(BAD_DOCUMENTS)("%s never takes the place of a good one", async (_, body, words) => {
    const { source, host } = await setUp();
    const cached = readFileSync(join(folder(), "A.json"), "utf8");
    service.answer = ({ url }, response) =>
      url === "/design/templates"
        ? response.end('{"items":[{"template_id":"A"},{"template_id":"N"}]}')
        : response.end(body);
    expect(await source.get("A")).toMatchObject({
      document: A,
      origin: expect.stringContaining("from the cache"),
    });
    expect(readFileSync(join(folder(), "A.json"), "utf8")).toBe(cached);
    expect(host.problems.at(-1)).toContain(words);
    expect(host.problems.at(-1)).toMatch(/; from the cache: A$/);
    const error = await failure(source.get("N"));
    expect(error).toMatchObject({ code: "template_invalid" });
    expect(error.message).toContain(`${service.url}/templates/N`);
    const { invalid } = await source.list();
    expect(invalid.map(({ template_id }) => template_id)).toEqual(expect.arrayContaining(["A", "N"]));
    service.answer = undefined;
    service.documents.set("N", { template_id: "N", command: "n" });
    await source.reload?.();
    expect(host.problems).toEqual([]);
  });

  it("slow: it is given up after its time, and cached ones are not held up again", async () => {
    const { source, host, clock } = await setUp({ timeout: "3s", max_age: "5s" });
    await clock.advance(5_000);
    // Drips for ever: what counts is the whole answer.
    service.answer = (_, response) => {
      const drip = setInterval(() => response.write(" "), 20);
      response.on("close", () => clearInterval(drip));
    };
    const before = service.asked.length;
    const asked = source.get("A");
    await waitFor(() => service.asked.length > before, { what: "the question" });
    await clock.advance(3_000);
    expect((await asked)?.origin).toContain("from the cache");
    expect(host.problems.at(-1)).toContain("did not answer within 3s");
    const count = service.asked.length;
    expect((await source.get("B"))?.origin).toContain("from the cache");
    expect(service.asked.length).toBe(count);
  });

  it("changing to another protocol: that is no answer, and it is not waited for", async () => {
    const { source, host } = await setUp();
    service.answer = (_, { socket }) =>
      void socket?.end(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
      );
    expect((await source.get("A"))?.origin).toContain("from the cache");
    expect(host.problems.at(-1)).toContain("answered 101");
  });

  it("of one template only, the others are the service's", async () => {
    const { source, host } = await setUp();
    service.documents.set("A", "{ broken");
    await source.get("A");
    expect((await source.get("B"))?.origin).toBe(`${service.url}/templates/B`);
    expect(host.problems.at(-1)).toMatch(/from the cache: A$/);
    service.documents.delete("A");
    await source.get("A");
    expect(host.problems).toEqual([]);
  });

  it("500 for one template only, the others are the service's, and that is told once", async () => {
    const { source, host } = await setUp();
    service.answer = ({ url }, response) => {
      const [id = ""] = url?.split("/").slice(-1) ?? [];
      if (id === "templates") return response.end('{"items":[{"template_id":"A"},{"template_id":"B"}]}');
      return id === "A" ? response.writeHead(500).end() : response.end(JSON.stringify(B));
    };
    await source.reload?.();
    await source.reload?.();
    expect((await source.get("B"))?.origin).toBe(`${service.url}/templates/B`);
    expect(host.problems).toEqual([expect.stringMatching(/answered 500 .*; from the cache: A$/)]);
  });

  it("a list that is not valid leaves the documents alone", async () => {
    const { source, host } = await setUp();
    service.answer = ({ url }, response) => {
      const found = service.documents.get(url?.split("/").at(-1) ?? "");
      response.end(found ? JSON.stringify(found) : '{"items":[{"template_id":"../x"}]}');
    };
    const { documents, invalid } = await source.list();
    expect(documents.map(({ origin }) => origin)).toEqual(
      ["A", "B"].map((id) => `${service.url}/templates/${id}`),
    );
    expect(invalid).toEqual([
      {
        origin: `${service.url}/templates`,
        error: expect.stringContaining("items[0].template_id: expected 1 to 63"),
      },
    ]);
    expect(host.problems.at(-1)).toContain("nothing comes from the cache");
  });
});

describe("redirects", () => {
  it("on the same server are followed, with the token", async () => {
    const token = join(home, "token");
    writeFileSync(token, "tok\n", { mode: 0o600 });
    service.answer = ({ url }, response) =>
      url === "/moved/A"
        ? response.end(JSON.stringify(A))
        : response.writeHead(307, { location: "/moved/A" }).end();
    const { source } = await setUp({ token_file: token });
    expect((await source.get("A"))?.document).toEqual(A);
    expect(service.asked.at(-1)).toMatchObject({
      path: "/moved/A",
      headers: { authorization: "Bearer tok" },
    });
  });
});

describe("the token", () => {
  const SECRET = "s3cret-token-that-nobody-sees";
  const file = () => join(home, "token");

  it("is read for every question, and stands nowhere", async () => {
    writeFileSync(file(), `${SECRET}\n`, { mode: 0o600 });
    const { source, host } = await setUp({ token_file: file() });
    await source.get("A");
    expect(service.asked.at(-1)?.headers.authorization).toBe(`Bearer ${SECRET}`);
    writeFileSync(file(), `${SECRET}2\n`);
    await source.get("A");
    expect(service.asked.at(-1)?.headers.authorization).toBe(`Bearer ${SECRET}2`);
    service.answer = (_, response) => response.writeHead(403).end();
    await source.get("A");
    const kept = readdirSync(folder()).map((name) => readFileSync(join(folder(), name), "utf8"));
    expect(JSON.stringify([host.log, host.problems, kept])).not.toContain(SECRET);
  });

  it("of a file that others can read is not sent, nor what is none", async () => {
    const place = (text: string, mode: number) => {
      rmSync(file(), { recursive: true, force: true });
      writeFileSync(file(), text);
      chmodSync(file(), mode);
    };
    const wrong: [() => void, string][] = [
      [() => rmSync(file()), "cannot be read (ENOENT)"],
      [() => symlinkSync("/etc/hostname", file()), "is a symbolic link"],
      [() => place(`${SECRET} x`, 0o600), "does not hold a token alone"],
      [() => place("x".repeat(9_000), 0o600), "has more than 8192 bytes"],
      [() => place(SECRET, 0o640), "can be used by others"],
      [() => place(SECRET, 0o602), "can be used by others"],
    ];
    writeFileSync(file(), SECRET, { mode: 0o600 });
    const { source, host } = await setUp({ token_file: file() });
    const before = service.asked.length;
    for (const [change, words] of wrong) {
      change();
      expect((await source.get("A"))?.origin).toContain("from the cache");
      const error = await failure(source.get("C"));
      expect(error.message).toContain(
        `template service ${service.url} is not asked: the token file ${file()} ${words}`,
      );
      expect(error.message).not.toContain(SECRET);
      expect(host.problems.at(-1)).toContain(words);
    }
    expect(service.asked.length).toBe(before);
  });
});

describe("options", () => {
  const problemOf = (given: unknown): string => {
    try {
      validateSync(templatesHttp.definition.options, given, { code: "config_invalid", what: "it" });
      return "";
    } catch (error) {
      return (error as Error).message;
    }
  };

  it.each([
    ["http://127.0.0.1:8080/x/"],
    ["http://localhost:8080"],
    ["http://[::1]:1"],
    ["https://templates.example/team"],
  ])("%s is taken", (url) => {
    expect(problemOf({ url })).toBe("");
  });

  it.each([
    ["", "expected an address"],
    ["templates.example", "expected an address"],
    ["ftp://templates.example", "expected an address"],
    ["https://me:s3cret@templates.example", "expected no user and no password"],
    ["https://templates.example/?x=1", 'without "?"'],
    ["http://templates.example", "plain_http: true"],
    ["http://127.0.0.1.evil.example", "plain_http: true"],
    ["http://localhost.evil.example", "plain_http: true"],
    ["http://0.0.0.0", "plain_http: true"],
  ])("%s is refused", (url, words) => {
    const problem = problemOf({ url });
    expect(problem).toContain(words);
    expect(problem).not.toContain("s3cret");
  });

  it("http to another machine is taken where that is said", () => {
    expect(problemOf({ url: "http://templates.example", plain_http: true })).toBe("");
    expect(problemOf({ url: "http://127.0.0.1", token_file: "token" })).toContain("absolute path");
    expect(problemOf({ url: "http://127.0.0.1", timeout: "0s" })).toContain("timeout");
  });
});

it("what it gives is what the kernel takes", async () => {
  const { source } = await setUp();
  const found = await source.get("A");
  expect(found && templateLanguage.parse(found).template.command).toBe("/bin/a");
});
